-- What HubSpot says about contacts, merged in; and the call budget that all processes share.

select tallybook.begin_migration('20261121001000', 'create_absorb_and_budget', '0.1.0');

-- The only door for remote numbers. p_contacts: [{hubspot_id, updated_at, stamp, archived, balances: {type: n},
-- empty: [type], unreadable: {type: text}, email?, student_id?, firstname?, lastname?, ndecc_exam_on?}]; a field that an answer did
-- not contain is absent and is not written. Numbers: at the first meeting HubSpot's is added; after that, the
-- difference to the one HubSpot showed last (nobody but people writes there as long as the stamp is ours). An empty
-- field is 0 where it was 0 or never met, and no number where it was one. An answer older than the newest one absorbed
-- changes nothing. Set-based, since an import passes a million of these.
create function tallybook.absorb_contacts(p_contacts jsonb, p_first_reason text)
returns table (hubspot_id text, contact_id uuid, outcome text)
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
begin
    -- One answer per contact, the newest: counting a first meeting twice would double the balance.
    select coalesce(jsonb_agg(d.r), '[]') into p_contacts
    from (select distinct on (r ->> 'hubspot_id') r from jsonb_array_elements(p_contacts) r
          order by r ->> 'hubspot_id', (r ->> 'updated_at')::timestamptz desc) d;

    -- Also those whose e-mail an answer has: they may be linked or lose it below.
    perform from tallybook.contacts c
    where c.id in (
        select o.id from jsonb_array_elements(p_contacts) r
        join tallybook.contacts o on o.hubspot_id = r ->> 'hubspot_id' and o.merged_into is null
        union all
        select o.id from jsonb_array_elements(p_contacts) r
        join tallybook.contacts o on o.email = r ->> 'email' and o.merged_into is null)
    order by c.id for no key update;

    -- A person made here who turns out to be in HubSpot too: linked by e-mail.
    update tallybook.contacts c set hubspot_id = r ->> 'hubspot_id'
    from jsonb_array_elements(p_contacts) r
    where c.email = r ->> 'email' and c.hubspot_id is null and c.merged_into is null
        and not exists (select from tallybook.contacts o
                        where o.hubspot_id = r ->> 'hubspot_id' and o.merged_into is null);

    -- E-mails are unique in HubSpot, so whoever else has one here is out of date. Freed first: people swap them.
    update tallybook.contacts c set email = null, session_epoch = c.session_epoch + 1
    from jsonb_array_elements(p_contacts) r
    where c.email = r ->> 'email' and c.hubspot_id is distinct from r ->> 'hubspot_id' and c.merged_into is null
        and coalesce(c.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz;

    insert into tallybook.contacts (hubspot_id, email, student_id, firstname, lastname, ndecc_exam_on)
    select r ->> 'hubspot_id', r ->> 'email', r ->> 'student_id', r ->> 'firstname', r ->> 'lastname',
        (r ->> 'ndecc_exam_on')::date
    from jsonb_array_elements(p_contacts) r
    where not exists (select from tallybook.contacts c
                      where c.hubspot_id = r ->> 'hubspot_id' and c.merged_into is null)
    order by r ->> 'hubspot_id'
    on conflict do nothing;

    perform from tallybook.contacts c
    where c.merged_into is null
        and c.hubspot_id in (select r ->> 'hubspot_id' from jsonb_array_elements(p_contacts) r)
    order by c.id for no key update;
    v_now := pg_catalog.clock_timestamp();

    insert into tallybook.credit_balances (contact_id, credit_type)
    select c.id, t.name
    from jsonb_array_elements(p_contacts) r
    join tallybook.contacts c on c.hubspot_id = r ->> 'hubspot_id' and c.merged_into is null
    join tallybook.credit_types t on r -> 'balances' ? t.name
    -- An older answer is not merged below, and a row without its number would pass for a known 0; so would one for a
    -- text that is no number.
    where coalesce(c.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
    order by 1, 2
    on conflict on constraint credit_balances_pkey do nothing;

    -- A text that is no number is neither merged nor taken for zero: a person has to look.
    insert into tallybook.sync_conflicts (object_type, object_id, field, kind, ours, theirs)
    select 'contact', c.id, t.name, 'unreadable', b.balance::text, coalesce(r -> 'unreadable' ->> t.name, '')
    from jsonb_array_elements(p_contacts) r
    join tallybook.contacts c on c.hubspot_id = r ->> 'hubspot_id' and c.merged_into is null
    join tallybook.credit_types t on r -> 'unreadable' ? t.name or r -> 'empty' ? t.name
    left join tallybook.credit_balances b on b.contact_id = c.id and b.credit_type = t.name
    where (r -> 'unreadable' ? t.name or coalesce(b.crm_base, 0) <> 0)
        and coalesce(c.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
    order by c.id, t.name
    on conflict (object_type, object_id, field, kind) where resolved_at is null do update
        set ours = excluded.ours, theirs = excluded.theirs;

    with edit as materialized (
        select c.id, b.credit_type, b.crm_base, b.balance, b.held, t.hubspot_property, r ->> 'updated_at' as at,
            (r -> 'balances' ->> b.credit_type)::integer as value,
            (r -> 'balances' ->> b.credit_type)::integer - coalesce(b.crm_base, 0) as delta
        from jsonb_array_elements(p_contacts) r
        join tallybook.contacts c on c.hubspot_id = r ->> 'hubspot_id' and c.merged_into is null
        join tallybook.credit_balances b on b.contact_id = c.id and r -> 'balances' ? b.credit_type
        join tallybook.credit_types t on t.name = b.credit_type
        where coalesce(c.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
            and (b.crm_base is null or c.crm_stamp is not distinct from r ->> 'stamp')
            and not (coalesce(r -> 'empty', '[]') ? b.credit_type and coalesce(b.crm_base, 0) <> 0)
            and b.crm_base is distinct from (r -> 'balances' ->> b.credit_type)::integer
    ), too_much as (
        insert into tallybook.sync_conflicts (object_type, object_id, field, kind, ours, theirs, details)
        select 'contact', e.id, e.credit_type, 'below_zero', e.balance::text, e.value::text,
            jsonb_build_object('remainder', e.held - e.balance - e.delta)
        from edit e where e.balance + e.delta < e.held
        order by e.id, e.credit_type
        on conflict (object_type, object_id, field, kind) where resolved_at is null do update
            set ours = excluded.ours, theirs = excluded.theirs, details = excluded.details
    ), entry as (
        insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, external_event)
        select e.id, e.credit_type, greatest(e.delta, e.held - e.balance),
            case when e.crm_base is null then p_first_reason else 'crm_edit' end, 'hubspot',
            concat_ws(':', e.id, e.hubspot_property, e.at, e.value)
        from edit e
        where greatest(e.delta, e.held - e.balance) <> 0
            and not exists (select from tallybook.credit_entries x
                            where x.external_event = concat_ws(':', e.id, e.hubspot_property, e.at, e.value))
        order by e.id, e.credit_type
        returning contact_id, credit_type
    )
    select 1 into v_now from (select count(*) from entry) n where false;

    -- In a statement of its own: an entry above has updated the same balance.
    update tallybook.credit_balances b
    set crm_base = (r -> 'balances' ->> b.credit_type)::integer
    from jsonb_array_elements(p_contacts) r
    join tallybook.contacts c on c.hubspot_id = r ->> 'hubspot_id' and c.merged_into is null
    where b.contact_id = c.id and r -> 'balances' ? b.credit_type
        and coalesce(c.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
        and (b.crm_base is null or c.crm_stamp is not distinct from r ->> 'stamp')
        and not (coalesce(r -> 'empty', '[]') ? b.credit_type and coalesce(b.crm_base, 0) <> 0)
        and b.crm_base is distinct from (r -> 'balances' ->> b.credit_type)::integer;

    v_now := pg_catalog.clock_timestamp();
    return query
    with done as (
        update tallybook.contacts c
        -- An address somebody newer has stays theirs; the next answer for this contact will be newer still.
        set email = case when r ? 'email' and not exists (
                select from tallybook.contacts o
                where o.email = r ->> 'email' and o.merged_into is null and o.id <> c.id)
                then r ->> 'email' else c.email end,
            student_id = case when r ? 'student_id' then r ->> 'student_id' else c.student_id end,
            firstname = case when r ? 'firstname' then r ->> 'firstname' else c.firstname end,
            lastname = case when r ? 'lastname' then r ->> 'lastname' else c.lastname end,
            -- Three-way: a remote value equal to the last agreed one is no edit.
            ndecc_exam_on = case when r ? 'ndecc_exam_on'
                and c.crm_base ->> 'ndecc_exam_on' is distinct from r ->> 'ndecc_exam_on'
                then (r ->> 'ndecc_exam_on')::date else c.ndecc_exam_on end,
            session_epoch = c.session_epoch + (c.crm_modified_at is not null
                and ((r ? 'email' and c.email is distinct from r ->> 'email')
                     or (r ? 'student_id' and c.student_id is distinct from r ->> 'student_id')))::integer,
            archived_at = case when (r ->> 'archived')::boolean then coalesce(c.archived_at, v_now) end,
            crm_base = c.crm_base || (r - array['hubspot_id', 'updated_at', 'stamp', 'archived', 'balances',
                                                 'empty', 'unreadable']),
            crm_modified_at = (r ->> 'updated_at')::timestamptz,
            crm_stamp = r ->> 'stamp',
            updated_at = case when c.crm_modified_at = (r ->> 'updated_at')::timestamptz then c.updated_at
                              else v_now end,
            synced_at = v_now
        from jsonb_array_elements(p_contacts) r
        where c.hubspot_id = r ->> 'hubspot_id' and c.merged_into is null
            and coalesce(c.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
            and c.crm_stamp is not distinct from r ->> 'stamp'
        returning c.hubspot_id, c.id
    )
    select r ->> 'hubspot_id', coalesce(d.id, c.id),
        case when d.id is not null then 'absorbed' when c.id is null then 'not_stored' else 'older' end
    from jsonb_array_elements(p_contacts) r
    left join done d on d.hubspot_id = r ->> 'hubspot_id'
    left join tallybook.contacts c on c.hubspot_id = r ->> 'hubspot_id' and c.merged_into is null;
end
$$;

-- One call's place in the budget: {slot} when it may be sent now, else the seconds after which to ask again. A slot
-- is in use until one window after its answer (until then: after its latest possible answer), so no rolling window
-- can hold more than the limit. p_share: how much of the limit this kind of call may fill.
create function tallybook.take_call_slot(
    p_kind text, p_search boolean, p_limits integer[], p_windows_s numeric[], p_share numeric, p_timeout_s numeric,
    out slot bigint, out wait_s numeric
)
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_now timestamptz;
    v_in_use integer;
    v_most integer;
    v_free_at timestamptz;
begin
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('crm_call_slots', 3));
    v_now := pg_catalog.clock_timestamp();
    delete from tallybook.crm_call_slots s where s.answered_at < v_now - interval '11 seconds';
    wait_s := 0;
    for i in 1..cardinality(p_limits) loop
        v_most := greatest(1, floor(p_limits[i] * p_share)::integer);
        select count(*) into v_in_use from tallybook.crm_call_slots s
        where s.search = p_search and s.answered_at > v_now - make_interval(secs => p_windows_s[i]);
        if v_in_use >= v_most then
            select s.answered_at + make_interval(secs => p_windows_s[i]) into v_free_at
            from tallybook.crm_call_slots s
            where s.search = p_search and s.answered_at > v_now - make_interval(secs => p_windows_s[i])
            order by s.answered_at offset v_in_use - v_most limit 1;
            wait_s := greatest(wait_s, 0.005, extract(epoch from v_free_at - v_now));
        end if;
    end loop;
    if wait_s = 0 then
        insert into tallybook.crm_call_slots (kind, search, taken_at, answered_at)
        values (p_kind, p_search, v_now, v_now + make_interval(secs => p_timeout_s))
        returning id into slot;
    end if;
end
$$;

create function tallybook.free_call_slot(p_slot bigint)
returns void
language sql volatile
set search_path = ''
as $$
    update tallybook.crm_call_slots set answered_at = pg_catalog.clock_timestamp() where id = p_slot
$$;

-- Tells the planner how large the tables have become; an import that fills them calls it now and then. As the owner,
-- since only the owner may.
create function tallybook.refresh_statistics()
returns void
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    analyze tallybook.contacts, tallybook.credit_balances, tallybook.credit_entries;
end
$$;
