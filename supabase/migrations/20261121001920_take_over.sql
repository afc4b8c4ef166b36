-- Taking over from the system before: its numbers as opening entries, and its bookings that HubSpot has never seen.

select tallybook.begin_migration('20261121001920', 'take_over', '0.1.0');

-- People as the old database has them, with its numbers as their opening entries. p_people: [{hubspot_id?, email, student_id, firstname, lastname,
-- ndecc_exam_date, credits: {type: n}}]. Gives the students' ids of those who were opened.
create function tallybook.open_people(p_people jsonb)
returns setof text
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_opened uuid[];
begin
    with opened as (
        insert into tallybook.contacts (hubspot_id, email, student_id, firstname, lastname, ndecc_exam_on)
        select r ->> 'hubspot_id', r ->> 'email', r ->> 'student_id', r ->> 'firstname', r ->> 'lastname',
            (r ->> 'ndecc_exam_date')::date
        from jsonb_array_elements(p_people) r
        where (r ->> 'hubspot_id' is null or not tallybook.is_known_record(r ->> 'hubspot_id'))
            and not exists (select from tallybook.contacts c where c.email = r ->> 'email' and c.merged_into is null)
        order by r ->> 'email'
        on conflict do nothing
        returning id
    )
    select array_agg(o.id order by o.id) into v_opened from opened o;

    insert into tallybook.credit_balances (contact_id, credit_type)
    select c.id, x.key
    from tallybook.contacts c
    join jsonb_array_elements(p_people) r on r ->> 'email' = c.email
    cross join lateral jsonb_each_text(r -> 'credits') x
    where c.id = any (v_opened)
    order by 1, 2;
    insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, external_event)
    select c.id, x.key, x.value::integer, 'import', 'take_over', concat_ws(':', c.id, x.key, 'take_over')
    from tallybook.contacts c
    join jsonb_array_elements(p_people) r on r ->> 'email' = c.email
    cross join lateral jsonb_each_text(r -> 'credits') x
    where c.id = any (v_opened) and x.value::integer > 0
    order by 1, 2;
    perform tallybook.note_changes(array_agg('contact'::text), array_agg(i))
    from unnest(v_opened) i having count(*) > 0;
    return query select c.student_id from tallybook.contacts c where c.id = any (v_opened);
end
$$;

-- People who are here already, from an import while Tallybook only observed: their numbers become the old database's.
-- Never where somebody has decided here since, and never twice. Gives the students' ids of those left as they were.
create function tallybook.correct_people(p_people jsonb)
returns setof text
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_person record;
begin
    for v_person in
        select c.id, c.student_id, r
        from jsonb_array_elements(p_people) r
        join tallybook.contacts c on c.merged_into is null and c.erased_at is null and c.id = (
            select o.id from tallybook.contacts o
            where o.merged_into is null and (o.hubspot_id = r ->> 'hubspot_id' or o.email = r ->> 'email')
            order by o.hubspot_id = r ->> 'hubspot_id' desc nulls last limit 1)
        order by c.id
        for no key update of c
    loop
        if exists (select from tallybook.credit_entries e
                   where e.contact_id = v_person.id and e.actor not in ('import', 'take_over') and e.actor not like 'hubspot%') then
            return next v_person.student_id;
            continue;
        end if;
        perform tallybook.book_remote_edits(b.contact_id, b.credit_type, jsonb_build_array(jsonb_build_object(
            'delta', (v_person.r -> 'credits' ->> b.credit_type)::integer - b.balance,
            'value', v_person.r -> 'credits' -> b.credit_type, 'actor', 'take_over', 'reason', 'import',
            'event', concat_ws(':', b.contact_id, b.credit_type, 'take_over'))))
        from tallybook.credit_balances b
        where b.contact_id = v_person.id and b.balance <> (v_person.r -> 'credits' ->> b.credit_type)::integer;
        if tallybook.contact_is_dirty(v_person.id) then
            perform tallybook.note_changes(array['contact'], array[v_person.id]);
        end if;
    end loop;
end
$$;

-- A booking of the old database. One that HubSpot has is here already; cancelled there without HubSpot's knowing, it is
-- cancelled, and no balance changes: the numbers were settled with the people. One that HubSpot has never seen becomes
-- ours, as import_booking takes it, and is pushed. p_item: one of absorb_bookings's, whose id is the old row's.
-- Gives 'same', 'cancelled', 'taken', or why not.
create function tallybook.take_over_booking(p_item jsonb, p_hubspot_id text)
returns text
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_booking tallybook.bookings;
    v_contact_id uuid := tallybook.contact_of_record(p_item ->> 'contact_hubspot_id');
    v_exam_id uuid;
    v_id uuid;
    v_entry record;
begin
    select b.* into v_booking from tallybook.bookings b
    where b.id = tallybook.uuid_or_null(p_item ->> 'tallybook_id') or b.hubspot_id = p_hubspot_id
    order by b.hubspot_id = p_hubspot_id desc nulls last limit 1;
    if v_booking.id is null then
        select e.id into v_exam_id from tallybook.mock_exams e where e.hubspot_id = p_item ->> 'mock_exam_hubspot_id';
        v_contact_id := coalesce(v_contact_id, (
            select c.id from tallybook.contacts c
            where c.email = p_item ->> 'email' and c.student_id = p_item ->> 'student_id' and c.merged_into is null));
        if v_contact_id is null or v_exam_id is null then
            return case when v_contact_id is null then 'its student is unknown' else 'its mock exam is unknown' end;
        end if;
        -- HubSpot may have it although nobody noted so: then it came with the import.
        select b.* into v_booking from tallybook.bookings b
        where b.contact_id = v_contact_id and b.mock_exam_id = v_exam_id and b.hubspot_id is not null
            and (b.crm_base ->> 'idempotency_key' = p_item -> 'texts' ->> 'idempotency_key'
                 or b.booking_id = p_item -> 'texts' ->> 'booking_id')
        order by b.created_at limit 1;
    end if;
    if v_booking.id is null then
        perform from tallybook.contacts c where c.id = v_contact_id for no key update;
        perform from tallybook.mock_exams e where e.id = v_exam_id for no key update;
        v_id := tallybook.import_booking(p_item || '{"hubspot_id": null}', v_contact_id, v_exam_id);
        -- It has no record yet: everything about it has to be told.
        update tallybook.bookings b
        set crm_base = '{}', crm_modified_at = null, crm_contact_hubspot_id = null, crm_mock_exam_hubspot_id = null,
            synced_at = null
        where b.id = v_id;
        perform tallybook.note_changes(array['booking', 'mock_exam'], array[v_id, v_exam_id]);
        return 'taken';
    end if;
    if v_booking.status = 'Cancelled' or p_item ->> 'status' <> 'Cancelled' then
        return 'same';
    end if;
    if (tallybook.cancel_found_booking(v_booking.id, true, 'take_over', null, true, false)).refusal is not null then
        return 'could not be cancelled';
    end if;
    select e.credit_type, e.delta into v_entry from tallybook.credit_entries e
    where e.booking_id = v_booking.id and e.reverses_entry_id is not null order by e.id desc limit 1;
    if found then
        insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, external_event)
        values (v_booking.contact_id, v_entry.credit_type, -v_entry.delta, 'import_opening', 'take_over',
                concat_ws(':', v_booking.id, 'take_over'));
    end if;
    return 'cancelled';
end
$$;

select tallybook.secure();
