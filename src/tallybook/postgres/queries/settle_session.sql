-- Acts as the application from the first statement on, even when DATABASE_URL names the owner. `jit` costs more
-- than it saves on statements of a millisecond.
select set_config('jit', 'off', false), set_config('statement_timeout', '15s', false),
    case when current_user <> 'tallybook_app' and pg_has_role(current_user, oid, 'member')
         then set_config('role', 'tallybook_app', false) end
from (select (select oid from pg_catalog.pg_roles where rolname = 'tallybook_app') as oid) r
