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
values ('credit_balances', 'update', array['crm_unreadable', 'crm_unset']), ('mock_exams', 'update', array['crm_unknown']);

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

-- HubSpot has shown no readable number of this balance yet; the base is 0 for want of one.
alter table tallybook.credit_balances add column crm_unset boolean not null default false;
update tallybook.credit_balances set crm_unset = true where crm_base = 0;

-- Base and sent values are kept by HubSpot's property names.
update tallybook.contacts
set crm_base = (crm_base - 'ndecc_exam_on') || jsonb_build_object('ndecc_exam_date', crm_base -> 'ndecc_exam_on')
where crm_base ? 'ndecc_exam_on';

-- The balances HubSpot has to be told, as {property: number}. Never those it has not shown yet (except of a contact
-- it does not have), nor frozen ones.
create function tallybook.dirty_balances(p_contact_id uuid)
returns jsonb
language sql stable
set search_path = ''
as $$
    select coalesce(jsonb_object_agg(t.hubspot_property, b.balance), '{}')
    from tallybook.contacts c
    join tallybook.credit_balances b on b.contact_id = c.id
    join tallybook.credit_types t on t.name = b.credit_type and t.hubspot_property is not null
    where c.id = p_contact_id and c.merged_into is null and c.erased_at is null and c.archived_at is null
        and (b.balance <> b.crm_base or b.crm_unreadable
             or (b.crm_base is null and c.hubspot_id is null and b.balance <> 0))
        and not tallybook.is_frozen('contact', c.id, t.name)
        and not tallybook.is_frozen('contact', c.id, 'tallybook_sync')
$$;

-- The texts and dates HubSpot has to be told, as {property: text}; null empties.
create function tallybook.dirty_texts(p_contact_id uuid)
returns jsonb
language sql stable
set search_path = ''
as $$
    select coalesce(jsonb_object_agg(m.key, m.value), '{}')
    from tallybook.contacts c, jsonb_each(tallybook.contact_mirror(c)) m
    where c.id = p_contact_id and c.merged_into is null and c.erased_at is null and c.archived_at is null
        and c.crm_base ->> m.key is distinct from m.value #>> '{}'
        and not tallybook.is_frozen('contact', c.id, m.key)
        and not tallybook.is_frozen('contact', c.id, 'tallybook_sync')
$$;

-- Whether HubSpot has to be told anything about this contact; true also for one it does not have.
create function tallybook.contact_is_dirty(p_contact_id uuid)
returns boolean
language sql stable
cost 10000
set search_path = ''
as $$
    select tallybook.dirty_balances(p_contact_id) <> '{}' or tallybook.dirty_texts(p_contact_id) <> '{}'
        or exists (select from tallybook.contacts c
                   where c.id = p_contact_id and c.hubspot_id is null and c.merged_into is null
                       and c.erased_at is null and c.archived_at is null)
$$;

-- Books what people changed in HubSpot: [{delta, value, at, actor, reason, event}], oldest first. Increases come
-- first, so that a correction made in two steps is not cut by the floor, which is what holds have set aside. What
-- cannot be taken goes to a person and is never tried again. The caller holds the contact's lock.
create function tallybook.book_remote_edits(p_contact_id uuid, p_credit_type text, p_edits jsonb)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
    v_edit jsonb;
    v_balance record;
    v_delta integer;
    v_short integer := 0;
begin
    perform tallybook.expire_overdue_holds(p_contact_id, pg_catalog.clock_timestamp());
    for v_edit in
        select e.edit from jsonb_array_elements(p_edits) with ordinality as e (edit, rank)
        where not exists (select from tallybook.credit_entries x where x.external_event = e.edit ->> 'event')
        order by (e.edit ->> 'delta')::integer < 0, e.rank
    loop
        select b.balance, b.held into v_balance from tallybook.credit_balances b
        where b.contact_id = p_contact_id and b.credit_type = p_credit_type;
        v_delta := greatest((v_edit ->> 'delta')::integer, v_balance.held - v_balance.balance);
        v_short := v_short + v_delta - (v_edit ->> 'delta')::integer;
        if v_delta <> 0 then
            insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, external_event)
            values (p_contact_id, p_credit_type, v_delta, v_edit ->> 'reason', v_edit ->> 'actor', v_edit ->> 'event');
        end if;
    end loop;
    if v_short > 0 then
        insert into tallybook.sync_conflicts as s (object_type, object_id, field, kind, ours, theirs, details)
        select 'contact', b.contact_id, b.credit_type, 'below_zero', b.balance::text, p_edits -> -1 ->> 'value',
            jsonb_build_object('remainder', v_short)
        from tallybook.credit_balances b
        where b.contact_id = p_contact_id and b.credit_type = p_credit_type
        on conflict (object_type, object_id, field, kind) where resolved_at is null do update
            set ours = excluded.ours, theirs = excluded.theirs,
                details = jsonb_build_object('remainder', v_short + (s.details ->> 'remainder')::integer);
    end if;
end
$$;

-- How many of a history's entries (oldest first) the last answer absorbed had in it: those up to its time, of which
-- the newest readable one has to be the base. NULL: it is not, so entries between them are lost. Entries of the very
-- millisecond may have come before or after that answer; the base tells.
create function tallybook.entries_seen(p_entries jsonb, p_base integer, p_unset boolean, p_since timestamptz)
returns integer
language plpgsql immutable
set search_path = ''
as $$
declare
    v_before integer;
    v_until integer;
    v_number integer;
begin
    select count(*) filter (where (e ->> 'at')::timestamptz < p_since),
        count(*) filter (where (e ->> 'at')::timestamptz <= p_since)
    into v_before, v_until
    from jsonb_array_elements(p_entries) e;
    for i in reverse v_until..v_before loop
        select (e.entry ->> 'number')::integer into v_number
        from jsonb_array_elements(p_entries) with ordinality as e (entry, rank)
        where e.rank <= i and e.entry ->> 'number' is not null
            and not ((e.entry ->> 'empty')::boolean and p_base <> 0)
        order by e.rank desc limit 1;
        -- Nothing readable yet is 0. HubSpot keeps at least twenty entries, so fewer are all there ever were, also
        -- where whoever set the base did not say that it is 0 for want of a number.
        if v_number = p_base or (v_number is null and (p_unset or p_base = 0)
                                 and (i > 0 or jsonb_array_length(p_entries) < 20)) then
            return i;
        end if;
    end loop;
    return null;
end
$$;

-- Whether all entries of a history came after the last answer absorbed, and a number is among them.
create function tallybook.is_newer_throughout(p_entries jsonb, p_since timestamptz)
returns boolean
language sql immutable
set search_path = ''
as $$
    select coalesce(bool_and((e ->> 'at')::timestamptz > p_since)
            and bool_or(e ->> 'number' is not null and not (e ->> 'empty')::boolean), false)
    from jsonb_array_elements(p_entries) e
$$;

-- The numbers of an answer that may hold own writes nobody has read: entry by entry, from the base on, own ones
-- move the base, all others are edits. The caller holds the contact's lock.
create function tallybook.absorb_history(p_answer jsonb, p_contact_id uuid, p_since timestamptz)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
    v_type record;
    v_seen integer;
    v_chain integer;
    v_entry jsonb;
    v_edits jsonb;
    v_unreadable boolean;
    -- Whether the stamps of all own writes since then are among those shown: the one absorbed last still is, or they are
    -- fewer than HubSpot keeps.
    v_all_stamps boolean := (
        select case when c.crm_stamp is null then jsonb_array_length(p_answer -> 'history' -> 'stamps') < 20
                    else p_answer -> 'history' -> 'stamps' ? c.crm_stamp end
        from tallybook.contacts c where c.id = p_contact_id);
    v_none_is_ours boolean := (
        select c.crm_stamp is not distinct from p_answer ->> 'stamp' from tallybook.contacts c where c.id = p_contact_id);
begin
    for v_type in
        select t.name, t.hubspot_property, b.balance, b.crm_base, b.crm_unset,
            p_answer -> 'balances' ->> t.name as number, p_answer -> 'unreadable' ->> t.name as odd_text,
            p_answer -> 'empty' ? t.name as is_empty,
            coalesce(p_answer -> 'history' -> 'balances' -> t.name, '[]') as entries
        from tallybook.credit_types t
        join tallybook.credit_balances b on b.contact_id = p_contact_id and b.credit_type = t.name
        where b.crm_base is not null and (p_answer -> 'balances' ? t.name or p_answer -> 'unreadable' ? t.name)
            and not tallybook.is_frozen('contact', p_contact_id, t.name)
        order by t.name
    loop
        v_seen := tallybook.entries_seen(v_type.entries, v_type.crm_base, v_type.crm_unset, p_since);
        -- More was typed than HubSpot keeps: as long as nobody but people wrote, the sum is the difference all the same.
        if v_seen is null and v_none_is_ours and tallybook.is_newer_throughout(v_type.entries, p_since) then
            v_seen := 0;
        end if;
        if v_seen is null or (v_seen < jsonb_array_length(v_type.entries) and not v_all_stamps) then
            perform tallybook.open_conflict('contact', p_contact_id, v_type.name, 'gap', v_type.balance::text,
                coalesce(v_type.odd_text, v_type.number),
                jsonb_build_object('base', v_type.crm_base, 'theirs', v_type.number::integer), true);
            continue;
        end if;
        v_chain := v_type.crm_base;
        v_edits := '[]';
        for v_entry in
            select e.entry from jsonb_array_elements(v_type.entries) with ordinality as e (entry, rank)
            where e.rank > v_seen and e.entry ->> 'number' is not null order by e.rank
        loop
            -- Emptied is not set to zero; only where zero was, it is the same.
            continue when (v_entry ->> 'empty')::boolean and v_chain <> 0;
            if not (v_entry ->> 'own')::boolean and (v_entry ->> 'number')::integer <> v_chain then
                v_edits := v_edits || jsonb_build_object(
                    'delta', (v_entry ->> 'number')::integer - v_chain, 'value', v_entry -> 'number',
                    'actor', v_entry -> 'actor', 'reason', 'crm_edit',
                    'event', concat_ws(':', p_contact_id, v_type.hubspot_property, v_entry ->> 'at',
                                       v_entry ->> 'number'));
            end if;
            v_chain := (v_entry ->> 'number')::integer;
        end loop;
        if v_edits <> '[]' then
            perform tallybook.book_remote_edits(p_contact_id, v_type.name, v_edits);
        end if;
        v_unreadable := v_type.number is null or (v_type.is_empty and v_chain <> 0);
        update tallybook.credit_balances b
        set crm_base = v_chain, crm_unreadable = v_unreadable,
            crm_unset = case when v_unreadable then b.crm_unset and v_chain = 0 else v_type.is_empty end
        where b.contact_id = p_contact_id and b.credit_type = v_type.name;
        if v_unreadable then
            perform tallybook.open_conflict('contact', p_contact_id, v_type.name, 'unreadable',
                (select b.balance::text from tallybook.credit_balances b
                 where b.contact_id = p_contact_id and b.credit_type = v_type.name),
                coalesce(v_type.odd_text, ''), '{}', false);
        end if;
    end loop;
end
$$;

-- Whether a contact has or had this HubSpot id.
create function tallybook.is_known_record(p_hubspot_id text)
returns boolean
language sql stable
as $$
    select exists (select from tallybook.contacts c where c.hubspot_id = p_hubspot_id and c.merged_into is null)
        or exists (select from tallybook.contact_aliases a where a.kind = 'hubspot_id' and a.value = p_hubspot_id)
$$;

-- Which of our contacts the answers are about: links those made here (by tallybook_id, else by e-mail), frees e-mails
-- that have gone to somebody else, inserts the new ones. Gives the HubSpot ids that have to be read again first: of
-- people who lost an e-mail, and of unknown records that show the identity of somebody we know under another id,
-- which may be two records become one. The caller holds the locks.
create function tallybook.link_contacts(p_answers jsonb)
returns text[]
language plpgsql volatile
set search_path = ''
as $$
declare
    v_read_again text[];
    v_freed text[];
begin
    update tallybook.contacts c set hubspot_id = r ->> 'hubspot_id', crm_unknown = false
    from jsonb_array_elements(p_answers) r
    where c.id = tallybook.uuid_or_null(r ->> 'tallybook_id') and c.hubspot_id is null
        and c.merged_into is null and c.erased_at is null
        and not tallybook.is_known_record(r ->> 'hubspot_id');

    -- A person made here who turns out to be in HubSpot too.
    update tallybook.contacts c set hubspot_id = r ->> 'hubspot_id'
    from jsonb_array_elements(p_answers) r
    where c.email = r -> 'texts' ->> 'email' and c.hubspot_id is null
        and c.merged_into is null and c.erased_at is null
        and not tallybook.is_known_record(r ->> 'hubspot_id');

    -- E-mails are unique in HubSpot, so whoever else of its people has one here is out of date. Freed first: people
    -- swap them. An unknown record takes none from somebody who may have become that record by a merge.
    with freed as (
        update tallybook.contacts c
        set email = null, session_epoch = c.session_epoch + 1, crm_base = c.crm_base || '{"email": null}'
        from jsonb_array_elements(p_answers) r
        where c.email = r -> 'texts' ->> 'email' and c.hubspot_id <> r ->> 'hubspot_id' and c.merged_into is null
            and coalesce(c.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
            and (c.archived_at is not null
                 or exists (select from tallybook.contacts k
                            where k.hubspot_id = r ->> 'hubspot_id' and k.merged_into is null
                                and coalesce(k.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz)
                 or exists (select from jsonb_array_elements(p_answers) o
                            where o ->> 'hubspot_id' = c.hubspot_id and o -> 'texts' ? 'email'
                                and o -> 'texts' ->> 'email' is distinct from c.email
                                and (o ->> 'updated_at')::timestamptz >= coalesce(c.crm_modified_at, '-infinity')))
        returning c.hubspot_id
    )
    select coalesce(array_agg(f.hubspot_id), '{}') into v_freed from freed f;

    select coalesce(array_agg(x.id), '{}') into v_read_again
    from jsonb_array_elements(p_answers) r
    cross join lateral (
        select o.hubspot_id from tallybook.contacts o
        where o.email = r -> 'texts' ->> 'email' and o.merged_into is null
        union all
        select o.hubspot_id from tallybook.contacts o
        where o.id = tallybook.uuid_or_null(r ->> 'tallybook_id') and o.merged_into is null
    ) c
    cross join lateral (values (r ->> 'hubspot_id'), (c.hubspot_id)) as x (id)
    where c.hubspot_id <> r ->> 'hubspot_id' and not tallybook.is_known_record(r ->> 'hubspot_id');

    insert into tallybook.contacts (hubspot_id, email, student_id, firstname, lastname, ndecc_exam_on, crm_base)
    select r ->> 'hubspot_id', r -> 'texts' ->> 'email', r -> 'texts' ->> 'student_id',
        r -> 'texts' ->> 'firstname', r -> 'texts' ->> 'lastname', (r -> 'texts' ->> 'ndecc_exam_date')::date,
        r -> 'texts'
    from jsonb_array_elements(p_answers) r
    where coalesce((r ->> 'store')::boolean, true) and r ->> 'hubspot_id' <> all (v_read_again)
        and not tallybook.is_known_record(r ->> 'hubspot_id')
    order by r ->> 'hubspot_id'
    on conflict do nothing;
    return v_read_again || v_freed;
end
$$;

-- What each text or date of the answers that HubSpot did not show last time means. 'agreed': no edit, or one to what we
-- have; 'taken': only they changed it; 'taken_over', 'kept': both did, and the owner's stands (staff's, of the exam date
-- the newest); 'blocked': the e-mail is somebody else's here.
create function tallybook.compare_texts(p_answers jsonb)
returns table (contact_id uuid, field text, verdict text, ours text, theirs text, holder_id uuid, holder_hubspot_id text)
language sql stable
set search_path = ''
as $$
    with edit as (
        select c, r, f.key as field, f.value #>> '{}' as theirs, m.value #>> '{}' as ours,
            c.crm_base ? f.key as met, c.crm_base ->> f.key as base,
            coalesce(c.crm_sent -> f.key @> f.value, false)
                or coalesce((r -> 'history' -> 'texts' -> f.key ->> 'own')::boolean, false) as is_own
        from jsonb_array_elements(p_answers) r
        join tallybook.contacts c on c.id = (r ->> 'id')::uuid
        cross join lateral jsonb_each(r -> 'texts') f
        join lateral jsonb_each(tallybook.contact_mirror(c)) m on m.key = f.key
        where c.crm_base -> f.key is distinct from f.value
    ), judged as (
        select e.*, case
            when e.theirs is not distinct from e.ours or e.is_own or (not e.met and e.theirs is null) then 'agreed'
            when (e.met and e.ours is not distinct from e.base) or (not e.met and e.ours is null) then 'taken'
            when e.field <> 'ndecc_exam_date' then 'taken_over'
            when coalesce(e.r -> 'history' -> 'texts' -> e.field ->> 'at', e.r ->> 'updated_at')::timestamptz
                > coalesce((select max(a.at) from tallybook.audit_log a where a.contact_id = (e.c).id
                                and a.action = 'contact.ndecc_date_set'), (e.c).updated_at) then 'taken_over'
            else 'kept' end as verdict,
            row_number() over (partition by e.field, e.theirs order by e.r ->> 'updated_at' desc) as rank
        from edit e
    )
    select (j.c).id, j.field,
        case when j.verdict like 'taken%' and j.field = 'email' and (h.id is not null or j.rank > 1 and j.theirs is not null)
             then 'blocked' else j.verdict end,
        j.ours, j.theirs, h.id, h.hubspot_id
    from judged j
    left join tallybook.contacts h on j.field = 'email' and h.email = j.theirs and h.merged_into is null
        and h.id <> (j.c).id
$$;

-- The texts, dates and marks of answers whose numbers have been absorbed. Gives the HubSpot ids to read again, since an
-- e-mail could not be taken from somebody else. The caller holds the contacts' locks.
create function tallybook.absorb_texts(p_answers jsonb, p_now timestamptz)
returns text[]
language plpgsql volatile
set search_path = ''
as $$
declare
    v_texts jsonb;
    v_read_again text[];
begin
    select jsonb_agg(to_jsonb(t)) into v_texts from tallybook.compare_texts(p_answers) t;
    if v_texts is not null then
        perform tallybook.open_conflict('contact', t.contact_id, t.field, 'both_changed', t.ours, t.theirs,
            case when t.holder_id is null then '{}' else jsonb_build_object('holder', t.holder_id) end, false)
        from jsonb_to_recordset(v_texts) as t (contact_id uuid, field text, verdict text, ours text, theirs text,
                                               holder_id uuid, holder_hubspot_id text)
        where t.verdict in ('taken_over', 'kept') or (t.verdict = 'blocked' and t.holder_hubspot_id is null)
        order by t.contact_id, t.field;

        -- Whoever has an old student ID on paper still gets in.
        insert into tallybook.contact_aliases (kind, value, contact_id)
        select 'student_id', t.ours, t.contact_id
        from jsonb_to_recordset(v_texts) as t (contact_id uuid, field text, verdict text, ours text)
        where t.field = 'student_id' and t.verdict in ('taken', 'taken_over') and t.ours is not null
        order by t.contact_id
        on conflict do nothing;

        select array_agg(x.id) into v_read_again
        from jsonb_to_recordset(v_texts) as t (contact_id uuid, verdict text, holder_hubspot_id text)
        join tallybook.contacts c on c.id = t.contact_id
        cross join lateral (values (c.hubspot_id), (t.holder_hubspot_id)) as x (id)
        where t.verdict = 'blocked' and t.holder_hubspot_id is not null;
    end if;

    with change as (
        select t.contact_id,
            coalesce(jsonb_object_agg(t.field, t.theirs) filter (where t.verdict in ('taken', 'taken_over')), '{}') as taken,
            coalesce(jsonb_object_agg(t.field, t.theirs) filter (where t.verdict <> 'blocked'), '{}') as base
        from jsonb_to_recordset(v_texts) as t (contact_id uuid, field text, verdict text, theirs text)
        group by t.contact_id
    ), answer as (
        select (r ->> 'id')::uuid as id, r, coalesce(h.taken, '{}') as taken, coalesce(h.base, '{}') as base
        from jsonb_array_elements(p_answers) r
        left join change h on h.contact_id = (r ->> 'id')::uuid
    )
    update tallybook.contacts c
    set email = case when a.taken ? 'email' then a.taken ->> 'email' else c.email end,
        student_id = case when a.taken ? 'student_id' then a.taken ->> 'student_id' else c.student_id end,
        firstname = case when a.taken ? 'firstname' then a.taken ->> 'firstname' else c.firstname end,
        lastname = case when a.taken ? 'lastname' then a.taken ->> 'lastname' else c.lastname end,
        ndecc_exam_on = case when a.taken ? 'ndecc_exam_date' then (a.taken ->> 'ndecc_exam_date')::date
                             else c.ndecc_exam_on end,
        session_epoch = c.session_epoch + ((a.taken ? 'email' and c.email is not null)
                                           or (a.taken ? 'student_id' and c.student_id is not null))::integer,
        archived_at = case when (a.r ->> 'archived')::boolean then coalesce(c.archived_at, p_now) end,
        crm_base = c.crm_base || a.base || case when a.r ->> 'tallybook_id' is null then '{}'
                                                else jsonb_build_object('tallybook_id', a.r -> 'tallybook_id') end,
        -- Once our newest write has been seen, what was sent before it need not be recognised any more.
        crm_sent = case when c.crm_sent = '{}' or (a.r ->> 'write_no')::bigint is distinct from c.write_no then c.crm_sent
                        else c.crm_sent - array(
                            select m.key from jsonb_each(tallybook.contact_mirror(c) || a.taken) m
                            where a.r -> 'texts' -> m.key = m.value) end,
        crm_stamp = a.r ->> 'stamp',
        crm_modified_at = (a.r ->> 'updated_at')::timestamptz,
        write_no = greatest(c.write_no, (a.r ->> 'write_no')::bigint),
        updated_at = case when a.taken = '{}' then c.updated_at else p_now end,
        synced_at = p_now
    from answer a
    where c.id = a.id;

    -- A date or an address nobody can read is left alone on both sides, until it is one again.
    perform tallybook.open_conflict('contact', (r ->> 'id')::uuid, x.key, 'unreadable',
        tallybook.contact_mirror(c) ->> x.key, x.value, '{}', false)
    from jsonb_array_elements(p_answers) r
    join tallybook.contacts c on c.id = (r ->> 'id')::uuid
    cross join lateral jsonb_each_text(r -> 'unreadable_texts') x
    order by c.id, x.key;
    return coalesce(v_read_again, '{}');
end
$$;

-- The numbers of answers without own writes that nobody has read: the difference to the base is what people changed,
-- and at the first meeting the number itself. Also the first meetings of single balances in all other answers. The
-- caller holds the contacts' locks.
create function tallybook.absorb_numbers(p_answers jsonb, p_first_reason text)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
    v_met jsonb;
    v_edit record;
begin
    -- A new balance starts at HubSpot's number; a negative one at 0, which HubSpot then is told.
    with met as (
        insert into tallybook.credit_balances (contact_id, credit_type, crm_base, crm_unset, crm_unreadable)
        select (r ->> 'id')::uuid, t.name, coalesce((r -> 'balances' ->> t.name)::integer, 0),
            r -> 'empty' ? t.name or r -> 'negative' ? t.name, r -> 'negative' ? t.name
        from jsonb_array_elements(p_answers) r
        join tallybook.credit_types t on r -> 'balances' ? t.name or r -> 'negative' ? t.name
        order by 1, 2
        on conflict on constraint credit_balances_pkey do nothing
        returning contact_id, credit_type, crm_base
    )
    select jsonb_agg(to_jsonb(m)) into v_met from met m where m.crm_base <> 0;

    -- In a statement of its own: an entry changes a balance that was there before it.
    insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, external_event)
    select m.contact_id, m.credit_type, m.crm_base, p_first_reason, 'hubspot',
        concat_ws(':', m.contact_id, t.hubspot_property, r ->> 'updated_at', m.crm_base)
    from jsonb_to_recordset(v_met) as m (contact_id uuid, credit_type text, crm_base integer)
    join tallybook.credit_types t on t.name = m.credit_type
    join jsonb_array_elements(p_answers) r on (r ->> 'id')::uuid = m.contact_id
    order by m.contact_id, m.credit_type;

    for v_edit in
        select c.id, b.credit_type, b.crm_base, (r -> 'balances' ->> b.credit_type)::integer as number,
            -- Two edits in one millisecond have one time: the version tells their answers apart.
            concat_ws(':', c.id, t.hubspot_property, r ->> 'updated_at', r -> 'balances' ->> b.credit_type,
                case when c.crm_modified_at = (r ->> 'updated_at')::timestamptz then b.version end) as event
        from jsonb_array_elements(p_answers) r
        join tallybook.contacts c on c.id = (r ->> 'id')::uuid
        join tallybook.credit_balances b on b.contact_id = c.id and r -> 'balances' ? b.credit_type
        join tallybook.credit_types t on t.name = b.credit_type
        where (b.crm_base is null or r ->> 'step' = 'exact')
            and coalesce(b.crm_base, 0) <> (r -> 'balances' ->> b.credit_type)::integer
            and not (r -> 'empty' ? b.credit_type)
            and not exists (select from tallybook.sync_conflicts s
                            where s.object_type = 'contact' and s.object_id = c.id and s.field = b.credit_type
                                and s.freezes and s.resolved_at is null)
        order by c.id, b.credit_type
    loop
        perform tallybook.book_remote_edits(v_edit.id, v_edit.credit_type, jsonb_build_array(jsonb_build_object(
            'delta', v_edit.number - coalesce(v_edit.crm_base, 0), 'value', v_edit.number, 'actor', 'hubspot',
            'reason', case when v_edit.crm_base is null then p_first_reason else 'crm_edit' end,
            'event', v_edit.event)));
    end loop;

    update tallybook.credit_balances b
    set crm_base = x.base, crm_unset = x.is_unset, crm_unreadable = x.is_odd
    from (
        select o.contact_id, o.credit_type,
            case when f.is_odd then coalesce(o.crm_base, 0) else (r -> 'balances' ->> t.name)::integer end as base,
            case when f.is_odd then coalesce(o.crm_unset, false) or o.crm_base is null
                 else r -> 'empty' ? t.name end as is_unset,
            f.is_odd
        from jsonb_array_elements(p_answers) r
        join tallybook.credit_balances o on o.contact_id = (r ->> 'id')::uuid
        join tallybook.credit_types t on t.name = o.credit_type
        cross join lateral (select r -> 'unreadable' ? t.name
            or (r -> 'empty' ? t.name and coalesce(o.crm_base, 0) <> 0) as is_odd) f
        where (o.crm_base is null or r ->> 'step' = 'exact')
            and (r -> 'balances' ? t.name or r -> 'unreadable' ? t.name)
            -- A text at the first meeting says nothing, and nothing is not zero; below zero there is only zero.
            and (o.crm_base is not null or not f.is_odd or r -> 'negative' ? t.name)
            and not exists (select from tallybook.sync_conflicts s
                            where s.object_type = 'contact' and s.object_id = o.contact_id
                                and s.field = o.credit_type and s.freezes and s.resolved_at is null)
    ) x
    where b.contact_id = x.contact_id and b.credit_type = x.credit_type
        and (b.crm_base, b.crm_unset, b.crm_unreadable) is distinct from (x.base, x.is_unset, x.is_odd);

    perform tallybook.open_conflict('contact', (r ->> 'id')::uuid, t.name, 'unreadable', b.balance::text,
        coalesce(r -> 'unreadable' ->> t.name, ''), '{}', false)
    from jsonb_array_elements(p_answers) r
    join tallybook.credit_types t on r -> 'unreadable' ? t.name or r -> 'empty' ? t.name
    left join tallybook.credit_balances b on b.contact_id = (r ->> 'id')::uuid and b.credit_type = t.name
    where b.crm_unreadable or b.crm_base is null
    order by r ->> 'id', t.name;
end
$$;

-- Conflicts that answers show to be over, and the newest number of those that wait for a person.
create function tallybook.settle_contact_conflicts(p_answers jsonb, p_now timestamptz)
returns void
language sql volatile
set search_path = ''
as $$
    update tallybook.sync_conflicts s
    set resolved_at = p_now, resolved_by = 'system', resolution = 'no longer so'
    from jsonb_array_elements(p_answers) r
    where s.object_type = 'contact' and s.object_id = (r ->> 'id')::uuid and s.resolved_at is null
        and (s.kind = 'deleted' and not (r ->> 'archived')::boolean
             or s.kind = 'unreadable' and not r -> 'unreadable_texts' ? s.field and r -> 'texts' ? s.field
             or s.kind = 'unreadable' and r -> 'balances' ? s.field
                and exists (select from tallybook.credit_balances b
                            where b.contact_id = s.object_id and b.credit_type = s.field and not b.crm_unreadable));

    update tallybook.sync_conflicts s
    set theirs = r -> 'balances' ->> s.field,
        details = s.details || jsonb_build_object('theirs', r -> 'balances' -> s.field)
    from jsonb_array_elements(p_answers) r
    where s.object_type = 'contact' and s.object_id = (r ->> 'id')::uuid and s.resolved_at is null
        and s.kind = 'gap' and r -> 'balances' ? s.field
        and not (r -> 'empty' ? s.field and s.details ->> 'theirs' <> '0')
        and s.details -> 'theirs' is distinct from r -> 'balances' -> s.field
$$;

-- A number beyond the largest that was made here is read back as it is: what equals ours, or the base, is readable.
create function tallybook.accept_own_numbers(p_answers jsonb)
returns jsonb
language sql stable
set search_path = ''
as $$
    select jsonb_agg(r || jsonb_build_object(
        'balances', (r -> 'balances') || coalesce(x.own, '{}'),
        'unreadable', (r -> 'unreadable') - coalesce(x.names, '{}')) order by n)
    from jsonb_array_elements(p_answers) with ordinality as a (r, n)
    left join lateral (
        select jsonb_object_agg(u.key, u.value::integer) as own, array_agg(u.key) as names
        from jsonb_each_text(r -> 'unreadable') u
        join tallybook.contacts c on c.hubspot_id = r ->> 'hubspot_id' and c.merged_into is null
        join tallybook.credit_balances b on b.contact_id = c.id and b.credit_type = u.key
            and u.value in (b.balance::text, b.crm_base::text)
    ) x on true
$$;

-- What has to be done with each answer: the answers with our contact's `id` and a `step`. 'same': nothing new; 'exact':
-- none of our writes since the last one, and numbers throughout; 'chain': the histories decide. The others end here:
-- 'older', 'need_history', 'again', 'not_stored', 'ahead' (it shows a write of ours that this database does not know,
-- which then comes from a backup).
create function tallybook.classify_answers(p_answers jsonb)
returns jsonb
language sql stable
set search_path = ''
as $$
    select coalesce(jsonb_agg(r || jsonb_build_object('id', c.id, 'step', case
        when c.id is null or c.erased_at is not null then 'not_stored'
        when c.crm_modified_at > (r ->> 'updated_at')::timestamptz or c.hubspot_id <> r ->> 'hubspot_id' then 'older'
        when (r ->> 'write_no')::bigint > c.write_no and (c.crm_modified_at is not null or c.write_no > 0) then 'ahead'
        when c.crm_modified_at = (r ->> 'updated_at')::timestamptz and c.crm_stamp is not distinct from r ->> 'stamp'
            and (c.archived_at is not null) = (r ->> 'archived')::boolean and c.crm_base @> (r -> 'texts')
            and r -> 'unreadable_texts' = '{}' and not exists (
                select from jsonb_each((r -> 'balances') || (r -> 'unreadable')) n
                left join tallybook.credit_balances b on b.contact_id = c.id and b.credit_type = n.key
                where case when r -> 'unreadable' ? n.key or (r -> 'empty' ? n.key and b.crm_base <> 0)
                    then not b.crm_unreadable
                    else b.crm_unreadable or b.crm_base::text is distinct from n.value #>> '{}' end) then 'same'
        -- Before a text that is no number there may have been one that nobody has seen.
        when exists (
            select from tallybook.credit_balances b
            where b.contact_id = c.id and b.crm_base is not null
                and (r -> 'balances' ? b.credit_type or r -> 'unreadable' ? b.credit_type)
                and (c.crm_stamp is distinct from r ->> 'stamp' or r -> 'unreadable' ? b.credit_type
                     or (r -> 'empty' ? b.credit_type and b.crm_base <> 0)))
            then case when r -> 'history' is null then 'need_history'
                      when (r -> 'history' ->> 'late')::boolean then 'again' else 'chain' end
        else 'exact' end)), '[]')
    from jsonb_array_elements(p_answers) r
    left join lateral (
        select o.* from (
            select 1 as rank, x.* from tallybook.contacts x
            where x.hubspot_id = r ->> 'hubspot_id' and x.merged_into is null
            union all
            select 2, x.* from tallybook.contact_aliases a join tallybook.contacts x on x.id = a.contact_id
            where a.kind = 'hubspot_id' and a.value = r ->> 'hubspot_id'
        ) o order by o.rank limit 1
    ) c on true
$$;

drop function tallybook.absorb_contacts(jsonb, text);

-- The only door for remote numbers. p_contacts: [{hubspot_id, merged_ids, tallybook_id, updated_at, archived, stamp, write_no,
-- balances: {type: n}, empty: [type], unreadable: {type: text}, negative: [type], texts: {property: text}, unreadable_texts,
-- store, history?: {late, stamps: [text], balances: {type: [{number, empty, at, own, actor}]}, texts: {property: {at, own}}}}]; a field
-- that an answer did not contain is absent and is not written.
--
-- merged = local + the sum of what people changed in HubSpot since the base, which is the number it showed in the last
-- answer absorbed. As long as HubSpot shows the stamp of that answer none of our own writes has come in between, and
-- the difference is exact; else the histories tell own writes from edits. An answer older than the last one absorbed
-- changes nothing. Set-based as far as all answers go the same way, since an import passes a million of these.
create function tallybook.absorb_contacts(p_contacts jsonb, p_first_reason text)
returns table (hubspot_id text, contact_id uuid, outcome text)
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
-- A hundred rows found by their keys, however large the tables are: a plan made while they were small must not scan them
-- when an import has filled them.
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_rows jsonb;
    v_answer jsonb;
    v_read_again text[];
begin
    -- One answer per contact, the newest: counting a first meeting twice would double the balance.
    select coalesce(jsonb_agg(d.r), '[]') into p_contacts
    from (select distinct on (r ->> 'hubspot_id') r from jsonb_array_elements(p_contacts) r
          order by r ->> 'hubspot_id', (r ->> 'updated_at')::timestamptz desc, r ? 'history' desc) d;

    -- Also those whose e-mail or id an answer has: they may be linked or lose it below.
    perform from tallybook.contacts c
    where c.id in (
        select o.id from jsonb_array_elements(p_contacts) r
        join tallybook.contacts o on o.hubspot_id = r ->> 'hubspot_id' and o.merged_into is null
        union all
        select o.id from jsonb_array_elements(p_contacts) r
        join tallybook.contacts o on o.email = r -> 'texts' ->> 'email' and o.merged_into is null
        union all
        select tallybook.uuid_or_null(r ->> 'tallybook_id') from jsonb_array_elements(p_contacts) r
        union all
        select o.id from jsonb_array_elements(p_contacts) r
        cross join lateral jsonb_array_elements_text(r -> 'merged_ids') m
        join tallybook.contacts o on o.hubspot_id = m and o.merged_into is null)
    order by c.id for no key update;

    for v_answer in
        select r from jsonb_array_elements(p_contacts) r
        where exists (select from jsonb_array_elements_text(r -> 'merged_ids') m
                      join tallybook.contacts o on o.hubspot_id = m and o.merged_into is null
                      where m <> r ->> 'hubspot_id')
        order by r ->> 'hubspot_id'
    loop
        perform tallybook.follow_merge(v_answer, p_first_reason);
    end loop;
    v_read_again := tallybook.link_contacts(p_contacts);

    perform from tallybook.contacts c
    where c.merged_into is null
        and c.hubspot_id in (select r ->> 'hubspot_id' from jsonb_array_elements(p_contacts) r)
    order by c.id for no key update;
    v_now := pg_catalog.clock_timestamp();

    -- A record we created ourselves had nothing before our first write.
    update tallybook.credit_balances b set crm_base = 0, crm_unset = true
    from jsonb_array_elements(p_contacts) r
    join tallybook.contacts c on c.hubspot_id = r ->> 'hubspot_id' and c.merged_into is null
        and c.crm_modified_at is null and (r ->> 'write_no')::bigint between 1 and c.write_no
    where b.contact_id = c.id and b.crm_base is null and r -> 'balances' ? b.credit_type;

    if exists (select from jsonb_array_elements(p_contacts) r where r -> 'unreadable' <> '{}') then
        p_contacts := tallybook.accept_own_numbers(p_contacts);
    end if;
    v_rows := tallybook.classify_answers(p_contacts);

    update tallybook.contacts c set synced_at = v_now
    from jsonb_array_elements(v_rows) r
    where c.id = (r ->> 'id')::uuid and r ->> 'step' = 'same' and c.synced_at < v_now - interval '1 hour';

    for v_answer in select r from jsonb_array_elements(v_rows) r where r ->> 'step' = 'chain' order by r ->> 'id' loop
        perform tallybook.absorb_history(v_answer, c.id, c.crm_modified_at)
        from tallybook.contacts c where c.id = (v_answer ->> 'id')::uuid;
    end loop;
    select jsonb_agg(r) into v_answer from jsonb_array_elements(v_rows) r where r ->> 'step' in ('exact', 'chain');
    if v_answer is not null then
        perform tallybook.absorb_numbers(v_answer, p_first_reason);
        v_read_again := v_read_again || tallybook.absorb_texts(v_answer, v_now);
        perform tallybook.settle_contact_conflicts(v_answer, v_now);
    end if;

    if exists (select from jsonb_array_elements(v_rows) r where r ->> 'step' = 'ahead') then
        perform tallybook.open_conflict('contact', (r ->> 'id')::uuid, 'tallybook_sync', 'ahead',
            c.write_no::text, r ->> 'stamp', '{}', true)
        from jsonb_array_elements(v_rows) r join tallybook.contacts c on c.id = (r ->> 'id')::uuid
        where r ->> 'step' = 'ahead' order by c.id;
        perform tallybook.hold_pushing('restored', '{}');
    end if;

    perform tallybook.note_changes(array_agg('contact'::text), array_agg(c.id))
    from jsonb_array_elements(v_answer) r
    join tallybook.contacts c on c.id = (r ->> 'id')::uuid
    where (not c.crm_base @> tallybook.contact_mirror(c)
           or exists (select from tallybook.credit_balances b
                      where b.contact_id = c.id and (b.balance <> b.crm_base or b.crm_unreadable)))
        and tallybook.contact_is_dirty(c.id)
    having count(*) > 0;
    if v_read_again <> '{}' then
        -- Not at once: where both records insist, this goes round until a person has decided.
        perform tallybook.ask_to_read('contact', v_read_again, 5);
    end if;

    return query
    select r ->> 'hubspot_id', (r ->> 'id')::uuid,
        case when r ->> 'step' in ('same', 'exact', 'chain') then 'absorbed' else r ->> 'step' end
    from jsonb_array_elements(v_rows) r;
end
$$;

select tallybook.secure();
