-- Merging contacts: numbers by the history of their edits, texts field by field; and what is left to push.

select tallybook.begin_migration('20261121001400', 'merge_contacts', '0.1.0');

-- What the application may write beyond the list in secure(): each migration adds the rows for its own tables.
create table tallybook.application_rights (
    table_name text not null,
    privilege text not null,
    -- NULL: all of them.
    columns text[],
    constraint application_rights_pkey primary key (table_name, privilege),
    constraint application_rights_privilege_is_known check (privilege in ('insert', 'update', 'delete'))
);

insert into tallybook.application_rights (table_name, privilege, columns)
select t, p, null from unnest(array['inbox', 'sync_alerts', 'sync_lanes']) t, unnest(array['insert', 'update', 'delete']) p
union all
values ('credit_balances', 'update', array['crm_unreadable']), ('mock_exams', 'update', array['crm_unknown']);

create or replace function tallybook.secure()
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
    v_table record;
    v_right record;
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
        for v_right in select * from tallybook.application_rights order by table_name, privilege loop
            execute format('grant %s %s on tallybook.%I to tallybook_app', v_right.privilege,
                (select '(' || string_agg(quote_ident(c), ', ') || ')' from unnest(v_right.columns) c),
                v_right.table_name);
        end loop;
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

select tallybook.secure();
