-- Which server this is, as whom we act, and whether that role is above the rules.
select current_setting('server_version_num')::integer / 10000, current_user::text, session_user::text,
    r.rolsuper or r.rolbypassrls,
    pg_catalog.pg_has_role(current_user, n.nspowner, 'usage') and not r.rolsuper
from pg_catalog.pg_roles r
left join pg_catalog.pg_namespace n on n.nspname = 'tallybook'
where r.rolname = current_user
