-- Imports of bookings: twice as fast, and several at a time.

select tallybook.begin_migration('20261121002060', 'import_bookings_faster', '0.1.0');

-- Plans made while the tables were empty read them from end to end, for every booking, until autovacuum comes by.
create or replace function tallybook.refresh_statistics()
returns void
language plpgsql volatile security definer
set search_path = ''
as $$
begin
    analyze tallybook.contacts, tallybook.credit_balances, tallybook.credit_entries, tallybook.mock_exams,
        tallybook.bookings, tallybook.outbox;
end
$$;

-- Our contact for a HubSpot id: nearly always the one that has it; else one that was merged, followed to the end.
create or replace function tallybook.contact_of_record(p_hubspot_id text)
returns uuid
language sql stable
as $$
    select coalesce(
        (select c.id from tallybook.contacts c where c.hubspot_id = p_hubspot_id and c.merged_into is null),
        (with recursive step (id, merged_into, hops) as (
            (select c.id, c.merged_into, 0 from tallybook.contact_aliases a
             join tallybook.contacts c on c.id = a.contact_id
             where a.kind = 'hubspot_id' and a.value = p_hubspot_id
             limit 1)
            union all
            select c.id, c.merged_into, s.hops + 1 from step s
            join tallybook.contacts c on c.id = s.merged_into where s.hops < 100)
         select s.id from step s where s.merged_into is null))
$$;

-- The contacts, sessions and bookings that answers are about, as they are now.
create or replace function tallybook.parties_of(
    p_answers jsonb, out contact_ids uuid[], out exam_ids uuid[], out booking_ids uuid[]
)
language sql stable
as $$
    with parties as materialized (
        select coalesce(b.contact_id, tallybook.contact_of_record(r ->> 'contact_hubspot_id')) as contact_id,
            coalesce(b.mock_exam_id, e.id) as exam_id, b.id as booking_id
        from jsonb_array_elements(p_answers) r
        left join tallybook.bookings b on b.id = tallybook.booking_of(r)
        left join tallybook.mock_exams e on e.hubspot_id = r ->> 'mock_exam_hubspot_id' and b.id is null
    )
    select coalesce(array_agg(distinct p.contact_id) filter (where p.contact_id is not null), '{}'),
        coalesce(array_agg(distinct p.exam_id) filter (where p.exam_id is not null), '{}'),
        coalesce(array_agg(distinct p.booking_id) filter (where p.booking_id is not null), '{}')
    from parties p
$$;

-- A booking that was made before Tallybook: taken as it is, whatever rules came later. One that was paid gets the credit
-- it cost and the spend of it, so that cancelling gives it back and no balance changes. The caller holds the locks.
create or replace function tallybook.import_booking(p_item jsonb, p_contact_id uuid, p_exam_id uuid)
returns uuid
language plpgsql volatile
as $$
declare
    v_exam tallybook.mock_exams;
    v_names record;
    v_text text;
    -- One that was made here, in an hour this database has forgotten, keeps the id it was given.
    v_id uuid := coalesce(tallybook.uuid_or_null(p_item ->> 'tallybook_id'), gen_random_uuid());
    v_is_live boolean := p_item ->> 'status' <> 'Cancelled';
    v_now timestamptz := pg_catalog.clock_timestamp();
begin
    select * into v_exam from tallybook.mock_exams e where e.id = p_exam_id;
    v_names := tallybook.next_booking_names(p_contact_id, v_exam);
    v_text := coalesce(p_item -> 'texts' ->> 'booking_id', v_names.text_used);
    if v_is_live and v_exam.total_bookings >= v_exam.capacity then
        update tallybook.mock_exams e set capacity = e.total_bookings + 1, updated_at = v_now where e.id = p_exam_id;
    end if;
    -- The texts of two contacts may be the same, also in two imports at this moment; who comes second gets a number.
    for i in 1..1000000 loop
        insert into tallybook.bookings (id, hubspot_id, booking_id, contact_id, mock_exam_id, original_mock_exam_id, ordinal,
            mock_type, exam_on, starts_at, ends_at, status, token_used, attendance, attending_location, dominant_hand,
            idempotency_key, grandfathered, booked_by, cancelled_at, cancelled_by, crm_modified_at, crm_base,
            crm_contact_hubspot_id, crm_mock_exam_hubspot_id, created_at, synced_at)
        values (v_id, p_item ->> 'hubspot_id', v_text || case when i = 1 then '' else ' (' || i || ')' end,
            p_contact_id, p_exam_id, p_exam_id, v_names.ordinal, v_exam.mock_type, v_exam.exam_on, v_exam.starts_at, v_exam.ends_at, p_item ->> 'status',
            p_item ->> 'token_used', p_item ->> 'attendance', p_item ->> 'attending_location',
            (p_item ->> 'dominant_hand')::boolean,
            tallybook.booking_label(p_contact_id, p_exam_id, v_names.ordinal, v_exam.mock_type),
            v_is_live and exists (
                select from tallybook.bookings b
                where b.contact_id = p_contact_id and b.status <> 'Cancelled' and not b.grandfathered
                    and (b.mock_exam_id = p_exam_id
                         or (b.mock_type = v_exam.mock_type and b.exam_on = v_exam.exam_on)
                         or (b.starts_at < v_exam.ends_at and b.ends_at > v_exam.starts_at))),
            'import', case when not v_is_live then (p_item ->> 'cancelled_at')::timestamptz end,
            case when not v_is_live then 'import' end, (p_item ->> 'updated_at')::timestamptz, p_item -> 'texts',
            p_item ->> 'contact_hubspot_id', p_item ->> 'mock_exam_hubspot_id',
            coalesce((p_item ->> 'created_at')::timestamptz, v_now), v_now)
        on conflict on constraint bookings_booking_id_key do nothing;
        exit when found;
    end loop;
    if v_is_live and p_item ->> 'credit_type' is not null then
        insert into tallybook.credit_balances (contact_id, credit_type)
        values (p_contact_id, p_item ->> 'credit_type') on conflict do nothing;
        insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, booking_id)
        values (p_contact_id, p_item ->> 'credit_type', 1, 'import_opening', 'import', v_id);
        insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, booking_id)
        values (p_contact_id, p_item ->> 'credit_type', -1, 'booking', 'import', v_id);
    end if;
    return v_id;
end
$$;

select tallybook.secure();
