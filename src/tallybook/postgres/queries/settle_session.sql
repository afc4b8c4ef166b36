-- Acts as the application from the first statement on, even when DATABASE_URL names the owner. `jit` costs more
-- than it saves on statements of a millisecond. From version 16 on a member may lack the right to become the role.
select set_config('jit', 'off', false), set_config('statement_timeout', '15s', false),
    case when current_user <> 'tallybook_app' and pg_has_role(current_user, oid,
            case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end)
         then set_config('role', 'tallybook_app', false) end
from (select (select oid from pg_catalog.pg_roles where rolname = 'tallybook_app') as oid) r
