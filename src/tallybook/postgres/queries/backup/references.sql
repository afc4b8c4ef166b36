-- Which table points to which other one.
select distinct c.relname, r.relname
from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.conrelid
join pg_catalog.pg_class r on r.oid = k.confrelid
where k.contype = 'f' and k.connamespace = 'tallybook'::regnamespace and c.oid <> r.oid
