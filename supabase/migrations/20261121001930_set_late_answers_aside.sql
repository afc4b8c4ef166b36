-- Answers of HubSpot's that are older than what it has taken from us; and one meaning of what is left to tell it.

select tallybook.begin_migration('20261121001930', 'set_late_answers_aside', '0.1.0');

-- The balances HubSpot has to be told, as {property: number}. Never those it has not shown yet (except of a contact
-- it does not have), nor frozen ones, nor those of a retired type, which nobody reads back.
create or replace function tallybook.dirty_balances(p_contact_id uuid)
returns jsonb
language sql stable
set search_path = ''
as $$
    select coalesce(jsonb_object_agg(t.hubspot_property, b.balance), '{}')
    from tallybook.contacts c
    join tallybook.credit_balances b on b.contact_id = c.id
    join tallybook.credit_types t on t.name = b.credit_type and t.hubspot_property is not null
        and t.retired_at is null
    where c.id = p_contact_id and c.merged_into is null and c.erased_at is null and c.archived_at is null
        and (b.balance <> b.crm_base or b.crm_unreadable
             or (b.crm_base is null and c.hubspot_id is null and b.balance <> 0))
        and not tallybook.is_frozen('contact', c.id, t.name)
        and not tallybook.is_frozen('contact', c.id, 'tallybook_sync')
$$;

-- The texts and dates HubSpot has to be told, as {property: text}; null empties. Never an empty e-mail: it means that
-- somebody else has the address now, and theirs is the next answer to come.
create or replace function tallybook.dirty_texts(p_contact_id uuid)
returns jsonb
language sql stable
set search_path = ''
as $$
    select coalesce(jsonb_object_agg(m.key, m.value), '{}')
    from tallybook.contacts c, jsonb_each(tallybook.contact_mirror(c)) m
    where c.id = p_contact_id and c.merged_into is null and c.erased_at is null and c.archived_at is null
        and not (m.key = 'email' and m.value = 'null')
        and c.crm_base ->> m.key is distinct from m.value #>> '{}'
        and not tallybook.is_frozen('contact', c.id, m.key)
        and not tallybook.is_frozen('contact', c.id, 'tallybook_sync')
$$;

-- Both, as texts, without those HubSpot does not let us write.
create or replace function tallybook.contact_changes(p_contact tallybook.contacts, p_skip text[])
returns jsonb
language sql stable
as $$
    select coalesce(jsonb_object_agg(d.key, d.value), '{}')
    from jsonb_each_text(tallybook.dirty_texts(p_contact.id) || tallybook.dirty_balances(p_contact.id)) d
    where d.key <> all (p_skip)
$$;

-- The base with the instant of HubSpot's answer to a write of ours (NULL: it said none), which is where the base comes
-- from. A new record starts with an empty base, and so without it.
create function tallybook.written_at(p_base jsonb, p_at timestamptz)
returns jsonb
language sql stable
as $$
    select p_base || case when p_at is null then '{}' else jsonb_build_object(
        'written_at', greatest((p_base ->> 'written_at')::timestamptz, p_at)) end
$$;

-- Whether an answer was read before HubSpot took what the base says by now. Its values may be those we wrote over, which
-- would look like edits: a booking we cancelled as if somebody had reinstated it.
create function tallybook.is_overtaken(p_answer jsonb, p_base jsonb)
returns boolean
language sql stable
as $$
    select not (p_answer ->> 'archived')::boolean
        and coalesce((p_answer ->> 'updated_at')::timestamptz < (p_base ->> 'written_at')::timestamptz, false)
$$;

-- HubSpot has taken these values. p_rows: [{id, version, hubspot_id, updated_at, properties}]; gives the ids settled.
-- An answer absorbed since is newer than this one and has set the base itself; one read before is set aside.
create or replace function tallybook.confirm_mock_exams(p_token uuid, p_rows jsonb, p_skip text[])
returns uuid[]
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_ids uuid[];
    v_new uuid[];
    v_clean uuid[];
begin
    select array_agg(l.id) into v_ids
    from (select e.id from tallybook.mock_exams e
          where e.id in (select (r ->> 'id')::uuid from jsonb_array_elements(p_rows) r)
              and not exists (select from tallybook.mock_exams x, jsonb_array_elements(p_rows) r
                              where (r ->> 'id')::uuid = e.id and x.hubspot_id = r ->> 'hubspot_id' and x.id <> e.id)
          order by e.id for no key update) l;
    select coalesce(array_agg(e.id), '{}') into v_new
    from tallybook.mock_exams e where e.id = any (v_ids) and e.hubspot_id is null;
    update tallybook.mock_exams e
    set hubspot_id = coalesce(e.hubspot_id, r ->> 'hubspot_id'), synced_at = pg_catalog.clock_timestamp(),
        crm_unknown = false, crm_sent = tallybook.without_sent(e.crm_sent, r -> 'properties'),
        crm_base = tallybook.written_at(
            case when coalesce(e.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
                 then e.crm_base || ((r -> 'properties') - 'mock_exam_name') else e.crm_base end,
            (r ->> 'updated_at')::timestamptz)
    from jsonb_array_elements(p_rows) r
    where e.id = any (v_ids) and e.id = (r ->> 'id')::uuid;
    perform tallybook.wake_bookings('{}', v_new);
    select coalesce(array_agg(e.id), '{}') into v_clean
    from tallybook.mock_exams e
    where e.id = any (v_ids) and (tallybook.mock_exam_plan(e, p_skip)).action = 'drop';
    perform tallybook.settle_outbox('mock_exam', p_token,
        (select coalesce(jsonb_agg(r), '[]') from jsonb_array_elements(p_rows) r
         where (r ->> 'id')::uuid = any (v_ids)), v_clean);
    return coalesce(v_ids, '{}');
end
$$;

-- As confirm_mock_exams, with `contact_to` and `mock_exam_to`, the records it is associated with now, where that
-- changed. A row that is not to be settled (`settle` false) keeps its lease: something else about it failed.
create or replace function tallybook.confirm_bookings(p_token uuid, p_rows jsonb, p_skip text[])
returns uuid[]
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_locked uuid[];
    v_clean uuid[];
begin
    select coalesce(array_agg(l.id), '{}') into v_locked
    from (select b.id from tallybook.bookings b
          where b.id in (select (r ->> 'id')::uuid from jsonb_array_elements(p_rows) r)
              and not exists (select from tallybook.bookings x, jsonb_array_elements(p_rows) r
                              where (r ->> 'id')::uuid = b.id and x.hubspot_id = r ->> 'hubspot_id' and x.id <> b.id)
          order by b.id for no key update skip locked) l;
    update tallybook.bookings b
    set hubspot_id = coalesce(b.hubspot_id, r ->> 'hubspot_id'), synced_at = pg_catalog.clock_timestamp(),
        crm_unknown = false, crm_sent = tallybook.without_sent(b.crm_sent, r -> 'properties'),
        crm_base = tallybook.written_at(
            case when coalesce(b.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
                 then b.crm_base || ((r -> 'properties') - array['name', 'email', 'student_id'])
                 else b.crm_base end,
            (r ->> 'updated_at')::timestamptz),
        crm_contact_hubspot_id = case when o.lease_token = p_token
            then coalesce(r ->> 'contact_to', b.crm_contact_hubspot_id) else b.crm_contact_hubspot_id end,
        -- Whoever lost the lease knows nothing of what was associated since.
        crm_mock_exam_hubspot_id = case when o.lease_token = p_token
            then coalesce(r ->> 'mock_exam_to', b.crm_mock_exam_hubspot_id) else b.crm_mock_exam_hubspot_id end,
        crm_tried_mock_exams = case when o.lease_token = p_token and r ->> 'mock_exam_to' is not null
            then '{}' else b.crm_tried_mock_exams end
    from jsonb_array_elements(p_rows) r
    left join tallybook.outbox o on o.object_type = 'booking' and o.object_id = (r ->> 'id')::uuid
    where b.id = any (v_locked) and b.id = (r ->> 'id')::uuid;
    select coalesce(array_agg(b.id), '{}') into v_clean
    from tallybook.bookings b
    where b.id = any (v_locked) and (tallybook.booking_plan(b, p_skip)).action = 'drop';
    perform tallybook.settle_outbox('booking', p_token,
        (select coalesce(jsonb_agg(r), '[]') from jsonb_array_elements(p_rows) r
         where (r ->> 'id')::uuid = any (v_locked) and coalesce((r ->> 'settle')::boolean, true)), v_clean);
    return v_locked;
end
$$;

-- p_exams: [{hubspot_id, tallybook_id, updated_at, archived, texts: {property: text}, unreadable: {property: problem},
-- schedule: {texts, ...}, first: {...}, problems: []}] as hubspot/session_fields.py makes them. One answer that fails
-- harms no other.
create or replace function tallybook.absorb_mock_exams(p_exams jsonb, p_importing boolean)
returns setof tallybook.absorbed
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_answers jsonb := tallybook.newest_answers(p_exams);
    v_item jsonb;
    v_id uuid;
    v_done tallybook.absorbed;
begin
    perform tallybook.lock_sessions(v_answers);
    -- In the order of our ids, which is that of the outbox.
    for v_item, v_id in
        select r, tallybook.mock_exam_of(r) from jsonb_array_elements(v_answers) r order by 2
    loop
        begin
            if v_id is null then
                v_done := tallybook.meet_mock_exam(v_item, p_importing);
            elsif (select tallybook.is_overtaken(v_item, e.crm_base) from tallybook.mock_exams e where e.id = v_id) then
                v_done := tallybook.became(v_item, v_id, 'again', 'read before our last write');
            else
                v_done := tallybook.merge_mock_exam(v_id, v_item, p_importing);
            end if;
        exception when integrity_constraint_violation or data_exception then
            v_done := tallybook.became(v_item, v_id, 'not_stored', sqlstate || ': ' || sqlerrm);
        end;
        return next v_done;
    end loop;
end
$$;

-- p_bookings: as hubspot/booking_fields.py makes them. One answer that fails harms no other.
create or replace function tallybook.absorb_bookings(p_bookings jsonb, p_importing boolean)
returns setof tallybook.absorbed
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_answers jsonb := tallybook.newest_answers(p_bookings);
    v_item jsonb;
    v_id uuid;
    v_done tallybook.absorbed;
begin
    perform tallybook.lock_parties(v_answers);
    for v_item, v_id in
        select r, tallybook.booking_of(r) from jsonb_array_elements(v_answers) r order by 2
    loop
        begin
            if v_id is null then
                v_done := tallybook.meet_booking(v_item, p_importing);
            elsif (select tallybook.is_overtaken(v_item, b.crm_base) from tallybook.bookings b where b.id = v_id) then
                v_done := tallybook.became(v_item, v_id, 'again', 'read before our last write');
            else
                v_done := tallybook.merge_booking(v_id, v_item);
            end if;
        exception when integrity_constraint_violation or data_exception then
            v_done := tallybook.became(v_item, v_id, 'not_stored', sqlstate || ': ' || sqlerrm);
        end;
        return next v_done;
    end loop;
end
$$;

-- Lets a paused lane go on at once; what made it pause pauses it again if it is still there.
create or replace function tallybook.resume_lane(p_lane text, p_actor text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_reason text;
begin
    select l.reason into v_reason from tallybook.sync_lanes l where l.lane = p_lane for update;
    if not found then
        return tallybook.refuse('NOT_FOUND');
    end if;
    if v_reason is null then
        return tallybook.grant_answer('already', jsonb_build_object('lane', p_lane));
    end if;
    update tallybook.sync_lanes set paused_at = null, reason = null, words = null, resume_at = null, failures = 0
    where lane = p_lane;
    insert into tallybook.audit_log (actor, action, object_type, object_id, changes)
    values (p_actor, 'lane.resumed', 'lane', p_lane, jsonb_build_object('reason', v_reason));
    return tallybook.grant_answer('ok', jsonb_build_object('lane', p_lane, 'reason', v_reason));
end
$$;

select tallybook.secure();
