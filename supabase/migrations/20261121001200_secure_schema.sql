-- Closed by default, opened by name. Each later migration ends with `select tallybook.secure();`.

select tallybook.begin_migration('20261121001200', 'secure_schema', '0.1.0');

-- Revokes everything from everybody, grants the application and service_role what is listed here, and proves it.
create function tallybook.secure()
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
    v_table record;
    v_role text;
    v_problem text;
begin
    foreach v_role in array array['public', 'anon', 'authenticated', 'service_role', 'tallybook_app'] loop
        if v_role = 'public' or exists (select from pg_catalog.pg_roles r where r.rolname = v_role) then
            execute format('revoke all on all tables in schema tallybook from %I', v_role);
            execute format('revoke all on all sequences in schema tallybook from %I', v_role);
            execute format('revoke all on all functions in schema tallybook from %I', v_role);
            execute format('revoke all on schema tallybook from %I', v_role);
        end if;
    end loop;

    if exists (select from pg_catalog.pg_roles r where r.rolname = 'tallybook_app') then
        grant usage on schema tallybook to tallybook_app;
        grant select on all tables in schema tallybook to tallybook_app;
        grant execute on all functions in schema tallybook to tallybook_app;
        -- Only the owner decides about schema and rights; old names act for service_role alone.
        revoke execute on function tallybook.secure(), tallybook.begin_migration(text, text, text),
            tallybook.create_booking_atomic(text, text, text, text, text, text, text, text, text, text, integer, text),
            tallybook.cancel_booking_atomic(uuid, text, integer),
            tallybook.grant_credits(text, text, integer, text) from tallybook_app;
        grant insert on tallybook.contacts, tallybook.contact_aliases, tallybook.credit_balances,
            tallybook.mock_exams, tallybook.bookings, tallybook.credit_holds, tallybook.credit_entries,
            tallybook.mock_exam_prerequisites, tallybook.audit_log, tallybook.audit_details to tallybook_app;
        grant update on tallybook.contacts, tallybook.bookings, tallybook.credit_holds, tallybook.audit_details
            to tallybook_app;
        -- Never `balance`, `version` or `total_bookings`: entries and bookings change those.
        grant update (held, crm_base) on tallybook.credit_balances to tallybook_app;
        grant update (hubspot_id, mock_type, mock_set, exam_on, start_time, end_time, time_zone, starts_at, ends_at,
            location, address, capacity, activation, opens_at, archived_at, crm_modified_at, crm_base, crm_sent,
            updated_at, synced_at) on tallybook.mock_exams to tallybook_app;
        grant delete on tallybook.mock_exam_prerequisites to tallybook_app;
        grant insert, update, delete on tallybook.idempotency_keys, tallybook.outbox, tallybook.login_challenges,
            tallybook.rate_events, tallybook.crm_call_slots, tallybook.job_runs, tallybook.sync_state,
            tallybook.sync_conflicts to tallybook_app;
        grant insert, update on tallybook.staff, tallybook.api_keys, tallybook.catalog_state,
            tallybook.credit_types, tallybook.mock_types, tallybook.places, tallybook.metered_actions,
            tallybook.packs to tallybook_app;
    end if;
    if exists (select from pg_catalog.pg_roles r where r.rolname = 'service_role') then
        grant usage on schema tallybook to service_role;
        -- Writing to a view reaches the trigger that says what to use instead.
        grant select, insert, update, delete on tallybook.hubspot_contact_credits, tallybook.hubspot_mock_exams,
            tallybook.hubspot_bookings to service_role;
        grant execute on function
            tallybook.create_booking_atomic(text, text, text, text, text, text, text, text, text, text, integer, text),
            tallybook.cancel_booking_atomic(uuid, text, integer), tallybook.check_idempotency_key(text),
            tallybook.get_contact_credits(text, text, uuid, text), tallybook.get_booking(uuid, text, text),
            tallybook.grant_credits(text, text, integer, text) to service_role;
    end if;

    for v_table in select c.oid, c.relname from pg_catalog.pg_class c
                   where c.relnamespace = 'tallybook'::regnamespace and c.relkind in ('r', 'p') loop
        execute format('alter table tallybook.%I enable row level security', v_table.relname);
        if exists (select from pg_catalog.pg_roles r where r.rolname = 'tallybook_app')
                and not exists (select from pg_catalog.pg_policy p
                                where p.polrelid = v_table.oid and p.polname = 'tallybook_app_all') then
            execute format('create policy tallybook_app_all on tallybook.%I to tallybook_app '
                           'using (true) with check (true)', v_table.relname);
        end if;
    end loop;

    select p.problem into v_problem from tallybook.security_problems() p limit 1;
    if v_problem is not null then
        raise exception 'the schema is not safe: %', v_problem;
    end if;
end
$$;

-- What is open that should be closed, or closed to the application; no rows when all is well. `doctor` asks too.
create function tallybook.security_problems()
returns table (problem text)
language sql stable
set search_path = ''
as $$
    with role as (
        select r.rolname from pg_catalog.pg_roles r
        where r.rolname in ('anon', 'authenticated', 'service_role') and not r.rolsuper
    ), relation as (
        select c.oid, c.relname, c.relrowsecurity, c.relkind in ('r', 'p', 'f') as is_table from pg_catalog.pg_class c
        where c.relnamespace = 'tallybook'::regnamespace and c.relkind in ('r', 'p', 'f', 'v', 'm')
    ), tab as (
        select * from relation t where t.is_table
    )
    select 'table ' || t.relname || ' has no row level security' from tab t where not t.relrowsecurity
    union all
    select 'role ' || r.rolname || ' can ' || p || ' ' || t.relname
    from role r, relation t,
        unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p
    where case when p in ('select', 'insert', 'update', 'references')
               then pg_catalog.has_any_column_privilege(r.rolname, t.oid, p)
               else pg_catalog.has_table_privilege(r.rolname, t.oid, p) end
        -- The views are for service_role to read; a write reaches the trigger that says what to use instead.
        and not (r.rolname = 'service_role' and not t.is_table and p in ('select', 'insert', 'update', 'delete'))
    union all
    select 'role ' || r.rolname || ' may run function ' || f.proname
    from role r, pg_catalog.pg_proc f
    where f.pronamespace = 'tallybook'::regnamespace
        and pg_catalog.has_function_privilege(r.rolname, f.oid, 'execute')
        and not (r.rolname = 'service_role' and f.proname in ('create_booking_atomic', 'cancel_booking_atomic',
            'check_idempotency_key', 'get_contact_credits', 'get_booking', 'grant_credits'))
    union all
    select 'everybody may run function ' || f.proname
    from pg_catalog.pg_proc f
    where f.pronamespace = 'tallybook'::regnamespace
        and exists (select from pg_catalog.aclexplode(coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) a
                    where a.grantee = 0)
    union all
    select 'role ' || r.rolname || ' may use the schema'
    from role r
    where r.rolname <> 'service_role' and pg_catalog.has_schema_privilege(r.rolname, 'tallybook', 'usage')
    union all
    select 'deciding function ' || f.proname || ' runs as its owner without a fixed search path'
    from pg_catalog.pg_proc f
    where f.pronamespace = 'tallybook'::regnamespace and f.prosecdef
        and not coalesce(array_to_string(f.proconfig, ',') like '%search_path=%', false)
    union all
    select 'role tallybook_app may ' || p || ' ' || t
    from unnest(array['credit_entries', 'audit_log']) t, unnest(array['update', 'delete', 'truncate']) p
    where exists (select from pg_catalog.pg_roles r where r.rolname = 'tallybook_app' and not r.rolsuper)
        and pg_catalog.has_table_privilege('tallybook_app', ('tallybook.' || t)::regclass, p)
    union all
    select 'role tallybook_app may change ' || c || ' without what explains it'
    from (values ('credit_balances', 'balance'), ('credit_balances', 'version'), ('mock_exams', 'total_bookings'))
        as v (t, c)
    where exists (select from pg_catalog.pg_roles r where r.rolname = 'tallybook_app' and not r.rolsuper)
        and pg_catalog.has_column_privilege('tallybook_app', ('tallybook.' || v.t)::regclass, v.c, 'update')
    union all
    select 'role tallybook_app may create in the schema'
    where exists (select from pg_catalog.pg_roles r where r.rolname = 'tallybook_app' and not r.rolsuper)
        and pg_catalog.has_schema_privilege('tallybook_app', 'tallybook', 'create')
    union all
    select 'role tallybook_app sees no rows of ' || t.relname
    from tab t
    where exists (select from pg_catalog.pg_roles r where r.rolname = 'tallybook_app')
        and not (pg_catalog.has_table_privilege('tallybook_app', t.oid, 'select')
                 and exists (select from pg_catalog.pg_policy p
                             where p.polrelid = t.oid and p.polname = 'tallybook_app_all'))
    union all
    select 'role tallybook_app does not exist'
    where not exists (select from pg_catalog.pg_roles r where r.rolname = 'tallybook_app')
$$;

select tallybook.secure();
