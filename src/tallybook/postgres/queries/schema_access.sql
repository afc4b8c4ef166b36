-- Is there a schema of ours, may this role use it, and which role is it?
select n.oid is not null, coalesce(pg_catalog.has_schema_privilege(n.oid, 'usage'), false), current_user::text
from (select (select oid from pg_catalog.pg_namespace where nspname = 'tallybook') as oid) n
