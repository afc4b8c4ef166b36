-- What HubSpot says about mock exams and bookings, merged in field by field. A value typed there that our rules allow is
-- taken; one they refuse waits for a person; a status typed on a booking is a command.

select tallybook.begin_migration('20261121001600', 'absorb_sessions', '0.1.0');

-- What became of one answer. `outcome` is one of domain/mirror.py, or 'need': what has to be read or computed first is
-- in `need`.
create type tallybook.absorbed as (
    hubspot_id text,
    object_id uuid,
    outcome text,
    note text,
    need jsonb
);

-- The answer a conflict is about, for whoever decides to try it again.
alter table tallybook.sync_conflicts add column answer jsonb;

create function tallybook.keep_answer(
    p_object_type text, p_object_id uuid, p_field text, p_kind text, p_answer jsonb
)
returns void
language sql volatile
as $$
    update tallybook.sync_conflicts c set answer = p_answer
    where c.object_type = p_object_type and c.object_id = p_object_id and c.field = p_field and c.kind = p_kind
        and c.resolved_at is null
$$;

create function tallybook.became(
    p_item jsonb, p_object_id uuid, p_outcome text, p_note text default null, p_need jsonb default null
)
returns tallybook.absorbed
language sql immutable
as $$ select row(p_item ->> 'hubspot_id', p_object_id, p_outcome, p_note, p_need)::tallybook.absorbed $$;

-- What an imported cancellation gave back, only HubSpot knows: those values are repeated as they were last seen, so
-- that they are never written over.
create or replace function tallybook.booking_mirror(p_booking tallybook.bookings)
returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'booking_id', p_booking.booking_id, 'is_active', p_booking.status, 'token_used', p_booking.token_used,
        'idempotency_key', p_booking.idempotency_key, 'dominant_hand', p_booking.dominant_hand::text,
        'attending_location', p_booking.attending_location, 'attendance', p_booking.attendance)
        || case when p_booking.status = 'Cancelled' and p_booking.refunded is null then jsonb_build_object(
            'token_refunded', p_booking.crm_base ->> 'token_refunded',
            'token_refunded_at', p_booking.crm_base ->> 'token_refunded_at',
            'token_refund_admin', p_booking.crm_base ->> 'token_refund_admin')
        else jsonb_build_object(
            'token_refunded', case when p_booking.refunded then 'true' end,
            'token_refunded_at', case when p_booking.refunded then tallybook.millis(p_booking.cancelled_at) end,
            'token_refund_admin', case when p_booking.refunded and p_booking.cancelled_by like 'staff:%'
                                  then p_booking.cancelled_by end) end
$$;

-- -- merging texts -----------------------------------------------------------------------------------------------

-- The texts of an answer that somebody else wrote: neither what both sides last agreed on, nor what we have, nor
-- anything we sent since. {property: text}
create function tallybook.remote_edits(p_ours jsonb, p_base jsonb, p_sent jsonb, p_texts jsonb)
returns jsonb
language sql immutable
as $$
    select coalesce(jsonb_object_agg(t.key, t.value), '{}')
    from jsonb_each(p_texts) t
    where p_ours ? t.key
        and t.value #>> '{}' is distinct from p_base ->> t.key
        and t.value #>> '{}' is distinct from p_ours ->> t.key
        and not coalesce(p_sent -> t.key, '[]') @> jsonb_build_array(t.value)
$$;

-- The properties in which HubSpot has to be told ours.
create function tallybook.unlike_base(p_ours jsonb, p_base jsonb)
returns text[]
language sql immutable
as $$
    select coalesce(array_agg(o.key), '{}') from jsonb_each_text(p_ours) o
    where o.value is distinct from p_base ->> o.key
$$;

-- The sent values without those HubSpot shows as ours: these are the base now.
create function tallybook.without_agreed(p_sent jsonb, p_ours jsonb, p_texts jsonb)
returns jsonb
language sql immutable
as $$
    select coalesce(jsonb_object_agg(l.key, l.left_over) filter (where l.left_over <> '[]'), '{}')
    from (select s.key, case
            when p_texts ? s.key and p_texts ->> s.key is not distinct from p_ours ->> s.key
            then coalesce((select jsonb_agg(x) from jsonb_array_elements(s.value) x where x <> p_texts -> s.key), '[]')
            else s.value end as left_over
          from jsonb_each(p_sent) s) l
$$;

-- The fields that another kind of conflict than p_kind keeps as they are, on both sides.
create function tallybook.frozen_by_others(p_object_type text, p_object_id uuid, p_kind text)
returns text[]
language sql stable
as $$
    select coalesce(array_agg(c.field), '{}') from tallybook.sync_conflicts c
    where c.object_type = p_object_type and c.object_id = p_object_id and c.freezes and c.resolved_at is null
        and c.kind <> p_kind
$$;

-- Closes conflicts that no longer hold.
create function tallybook.close_conflicts(p_object_type text, p_object_id uuid, p_kind text, p_fields text[], p_how text)
returns void
language sql volatile
as $$
    update tallybook.sync_conflicts c
    set resolved_at = pg_catalog.clock_timestamp(), resolved_by = 'system', resolution = p_how
    where c.object_type = p_object_type and c.object_id = p_object_id and c.kind = p_kind
        and c.field = any (p_fields) and c.resolved_at is null
$$;

-- A stable id for a conflict about a record of HubSpot's that is none of ours.
create function tallybook.stand_in(p_object_type text, p_hubspot_id text)
returns uuid
language sql immutable
as $$ select md5('hubspot:' || p_object_type || ':' || p_hubspot_id)::uuid $$;

-- Our contact for a HubSpot id: also one that was merged, followed to the end.
create function tallybook.contact_of_record(p_hubspot_id text)
returns uuid
language sql stable
as $$
    with recursive step (id, merged_into, hops) as (
        select f.id, f.merged_into, 0 from (
            select 1 as rank, c.id, c.merged_into from tallybook.contacts c
            where c.hubspot_id = p_hubspot_id and c.merged_into is null
            union all
            select 2, c.id, c.merged_into from tallybook.contact_aliases a
            join tallybook.contacts c on c.id = a.contact_id
            where a.kind = 'hubspot_id' and a.value = p_hubspot_id
            order by rank limit 1) f
        union all
        select c.id, c.merged_into, s.hops + 1 from step s
        join tallybook.contacts c on c.id = s.merged_into where s.hops < 100
    )
    select s.id from step s where s.merged_into is null
$$;

-- One answer per record, the newest.
create function tallybook.newest_answers(p_answers jsonb)
returns jsonb
language sql immutable
as $$
    select coalesce(jsonb_agg(d.r order by d.r ->> 'hubspot_id'), '[]')
    from (select distinct on (r ->> 'hubspot_id') r from jsonb_array_elements(p_answers) r
          order by r ->> 'hubspot_id', (r ->> 'updated_at')::timestamptz desc nulls last) d
$$;

-- -- mock exams ---------------------------------------------------------------------------------------------------

-- Which of our sessions an answer is about; NULL: none yet. A session made here is known by our own id until HubSpot's
-- is.
create function tallybook.mock_exam_of(p_item jsonb)
returns uuid
language sql stable
as $$
    select coalesce(
        (select e.id from tallybook.mock_exams e where e.hubspot_id = p_item ->> 'hubspot_id'),
        (select e.id from tallybook.mock_exams e
         where e.id = tallybook.uuid_or_null(p_item ->> 'tallybook_id') and e.hubspot_id is null))
$$;

-- The texts that together say when a session takes place.
create function tallybook.schedule_fields()
returns text[]
language sql immutable
as $$ select array['exam_date', 'start_time', 'end_time', 'location'] $$;

-- Why a session cannot take place at this time: which of its students' other bookings are in the way. NULL: it can.
-- The caller holds the contacts' locks.
create function tallybook.schedule_refusal(
    p_exam tallybook.mock_exams, p_exam_on date, p_starts_at timestamptz, p_ends_at timestamptz
)
returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'code', case when bool_or(x.same_day) then 'DUPLICATE_BOOKING' else 'TIME_CONFLICT' end,
        'bookings', (array_agg(x.id order by x.id))[1:20], 'students', count(distinct x.contact_id))
    from (
        select b.id, b.contact_id, o.mock_type = p_exam.mock_type and o.exam_on = p_exam_on as same_day
        from tallybook.bookings b
        join tallybook.bookings o on o.contact_id = b.contact_id and o.id <> b.id and o.mock_exam_id <> p_exam.id
            and o.status <> 'Cancelled' and not o.grandfathered
        where b.mock_exam_id = p_exam.id and b.status <> 'Cancelled' and not b.grandfathered
            and ((o.mock_type = p_exam.mock_type and o.exam_on = p_exam_on)
                 or (o.starts_at < p_ends_at and o.ends_at > p_starts_at))
    ) x
    having count(*) > 0
$$;

-- Moves a session in time or to another place, and its live bookings with it. p_schedule is what the program computed
-- from the four texts, or {problem}. Gives why not, or NULL. The caller holds all locks.
create function tallybook.move_session(p_exam_id uuid, p_schedule jsonb)
returns jsonb
language plpgsql volatile
as $$
declare
    v_exam tallybook.mock_exams;
    v_to tallybook.mock_exams;
    v_refusal jsonb;
begin
    if p_schedule ->> 'problem' is not null then
        return jsonb_build_object('code', 'VALIDATION_ERROR', 'problem', p_schedule ->> 'problem');
    end if;
    select * into v_exam from tallybook.mock_exams e where e.id = p_exam_id;
    v_to := jsonb_populate_record(v_exam, p_schedule);
    v_refusal := tallybook.schedule_refusal(v_exam, v_to.exam_on, v_to.starts_at, v_to.ends_at);
    if v_refusal is not null then
        return v_refusal;
    end if;
    update tallybook.mock_exams e
    set exam_on = v_to.exam_on, start_time = v_to.start_time, end_time = v_to.end_time, time_zone = v_to.time_zone,
        starts_at = v_to.starts_at, ends_at = v_to.ends_at, location = v_to.location
    where e.id = p_exam_id;
    update tallybook.bookings b
    set exam_on = v_to.exam_on, starts_at = v_to.starts_at, ends_at = v_to.ends_at,
        updated_at = pg_catalog.clock_timestamp()
    where b.mock_exam_id = p_exam_id and b.status <> 'Cancelled'
        and (b.exam_on, b.starts_at, b.ends_at) is distinct from (v_to.exam_on, v_to.starts_at, v_to.ends_at);
    return null;
end
$$;

-- Gives a session one value by its HubSpot text, everything but the schedule. Gives why not, or NULL. The caller holds
-- the session's lock and has made sure that the text can be read.
create function tallybook.set_mock_exam_text(p_exam_id uuid, p_field text, p_text text)
returns jsonb
language plpgsql volatile
as $$
declare
    v_exam tallybook.mock_exams;
begin
    select * into v_exam from tallybook.mock_exams e where e.id = p_exam_id;
    if p_field = 'capacity' then
        if p_text::integer < v_exam.total_bookings then
            -- Nothing more is sold, and nobody loses a seat.
            update tallybook.mock_exams e set capacity = v_exam.total_bookings where e.id = p_exam_id;
            return jsonb_build_object('code', 'CAPACITY_BELOW_BOOKED', 'total_bookings', v_exam.total_bookings);
        end if;
        update tallybook.mock_exams e set capacity = p_text::integer where e.id = p_exam_id;
    elsif p_field = 'mock_type' then
        if v_exam.total_bookings > 0 then
            return jsonb_build_object('code', 'HAS_BOOKINGS', 'total_bookings', v_exam.total_bookings);
        end if;
        update tallybook.mock_exams e set mock_type = p_text where e.id = p_exam_id;
    elsif p_field = 'mock_set' then
        update tallybook.mock_exams e set mock_set = p_text where e.id = p_exam_id;
    elsif p_field = 'address' then
        update tallybook.mock_exams e set address = p_text where e.id = p_exam_id;
    elsif p_field = 'scheduled_activation_datetime' then
        if p_text is null and v_exam.activation = 'scheduled' then
            return jsonb_build_object('code', 'VALIDATION_ERROR', 'problem', 'a scheduled session needs a time');
        end if;
        update tallybook.mock_exams e set opens_at = p_text::timestamptz where e.id = p_exam_id;
    elsif p_field = 'is_active' then
        if p_text = 'scheduled' and v_exam.opens_at is null then
            return jsonb_build_object('code', 'VALIDATION_ERROR', 'problem', 'a scheduled session needs a time');
        end if;
        update tallybook.mock_exams e
        set activation = case p_text when 'true' then 'active' when 'false' then 'inactive' else 'scheduled' end
        where e.id = p_exam_id;
    else
        return jsonb_build_object('code', 'VALIDATION_ERROR', 'problem', 'cannot be set');
    end if;
    return null;
end
$$;

-- Whether HubSpot has to be told about a session, and whether the outbox knows already. While importing, the number of
-- bookings is not yet what it will be.
create function tallybook.note_mock_exam(p_exam_id uuid, p_changed boolean, p_importing boolean)
returns void
language plpgsql volatile
as $$
declare
    v_exam tallybook.mock_exams;
    v_dirty text[];
begin
    select * into v_exam from tallybook.mock_exams e where e.id = p_exam_id;
    v_dirty := tallybook.unlike_base(tallybook.mock_exam_mirror(v_exam), v_exam.crm_base);
    if p_importing then
        v_dirty := array_remove(v_dirty, 'total_bookings');
    end if;
    if exists (select from unnest(v_dirty) f where not tallybook.is_frozen('mock_exam', p_exam_id, f))
            and (p_changed or not exists (select from tallybook.outbox o
                                          where o.object_type = 'mock_exam' and o.object_id = p_exam_id)) then
        perform tallybook.note_changes(array['mock_exam'], array[p_exam_id]);
    end if;
end
$$;

-- A session HubSpot shows for the first time. It becomes ours if it can take place; if not, a person has to look.
create function tallybook.meet_mock_exam(p_item jsonb, p_importing boolean)
returns tallybook.absorbed
language plpgsql volatile
as $$
declare
    v_hubspot_id text := p_item ->> 'hubspot_id';
    v_exam tallybook.mock_exams;
    v_id uuid;
begin
    if (p_item ->> 'archived')::boolean then
        return tallybook.became(p_item, null, 'not_stored', 'archived');
    elsif exists (select from tallybook.mock_exams e
                  where e.id = tallybook.uuid_or_null(p_item ->> 'tallybook_id')) then
        return tallybook.became(p_item, null, 'not_stored', 'its tallybook_id is that of another record');
    elsif jsonb_array_length(p_item -> 'problems') > 0 then
        perform tallybook.open_conflict('mock_exam', tallybook.stand_in('mock_exam', v_hubspot_id), 'record',
            'refused_value', null, p_item ->> 'problems',
            jsonb_build_object('hubspot_id', v_hubspot_id, 'problems', p_item -> 'problems'), true);
        return tallybook.became(p_item, null, 'not_stored', p_item ->> 'problems');
    end if;
    v_exam := jsonb_populate_record(null::tallybook.mock_exams, (p_item -> 'schedule') || (p_item -> 'first'));
    insert into tallybook.mock_exams (id, hubspot_id, mock_type, mock_set, exam_on, start_time, end_time, time_zone,
        starts_at, ends_at, location, address, capacity, activation, opens_at, crm_modified_at, crm_base, synced_at,
        created_at)
    values (coalesce(tallybook.uuid_or_null(p_item ->> 'tallybook_id'), gen_random_uuid()), v_hubspot_id,
        v_exam.mock_type, v_exam.mock_set, v_exam.exam_on, v_exam.start_time, v_exam.end_time,
        v_exam.time_zone, v_exam.starts_at, v_exam.ends_at, v_exam.location, v_exam.address, v_exam.capacity,
        v_exam.activation, v_exam.opens_at, (p_item ->> 'updated_at')::timestamptz, p_item -> 'texts',
        pg_catalog.clock_timestamp(),
        coalesce((p_item ->> 'created_at')::timestamptz, pg_catalog.clock_timestamp()))
    on conflict on constraint mock_exams_hubspot_id_key do nothing
    returning id into v_id;
    if v_id is null then
        return tallybook.became(p_item, null, 'again', 'met at the same moment by somebody else');
    end if;
    perform tallybook.close_conflicts('mock_exam', tallybook.stand_in('mock_exam', v_hubspot_id), 'refused_value',
        array['record'], 'taken');
    perform tallybook.record('mock_exam.met', 'mock_exam', v_id, null, 'hubspot',
        jsonb_build_object('hubspot_id', v_hubspot_id), null);
    perform tallybook.note_mock_exam(v_id, true, p_importing);
    return tallybook.became(p_item, v_id, 'absorbed');
end
$$;

-- HubSpot's record is gone. Without live bookings the session is archived here too; with some, nothing is freed, and a
-- person decides.
create function tallybook.lose_mock_exam(p_exam tallybook.mock_exams, p_item jsonb)
returns tallybook.absorbed
language plpgsql volatile
as $$
begin
    if p_exam.archived_at is null and p_exam.total_bookings > 0 then
        perform tallybook.open_conflict('mock_exam', p_exam.id, 'record', 'deleted', p_exam.total_bookings || ' seats',
            'deleted', jsonb_build_object('hubspot_id', p_exam.hubspot_id, 'total_bookings', p_exam.total_bookings,
                                          'what_helps', 'recreate or cancel'), false);
        return tallybook.became(p_item, p_exam.id, 'absorbed', 'deleted there, with live bookings here');
    end if;
    perform tallybook.close_conflicts('mock_exam', p_exam.id, 'deleted', array['record'], 'no live bookings left');
    if p_exam.archived_at is null or p_exam.crm_base ->> 'archived' is null then
        update tallybook.mock_exams e
        set archived_at = coalesce(e.archived_at, pg_catalog.clock_timestamp()), updated_at = pg_catalog.clock_timestamp(),
            crm_base = e.crm_base || '{"archived": "true"}'
        where e.id = p_exam.id;
        perform tallybook.record('mock_exam.archived', 'mock_exam', p_exam.id, null, 'hubspot', '{}', null);
        delete from tallybook.outbox o where o.object_type = 'mock_exam' and o.object_id = p_exam.id;
    end if;
    return tallybook.became(p_item, p_exam.id, 'absorbed', 'archived');
end
$$;

-- Merges one answer into a session; the caller holds its lock, and those of its students where it may move.
create function tallybook.merge_mock_exam(p_exam_id uuid, p_item jsonb, p_importing boolean)
returns tallybook.absorbed
language plpgsql volatile
as $$
declare
    v_hubspot_id text := p_item ->> 'hubspot_id';
    v_exam tallybook.mock_exams;
    v_after tallybook.mock_exams;
    v_texts jsonb;
    v_ours jsonb;
    v_edits jsonb;
    v_taken jsonb := '{}';
    v_refused jsonb := '{}';
    v_refusal jsonb;
    v_wanted jsonb;
    v_field text;
    v_both text[];
begin
    select * into v_exam from tallybook.mock_exams e where e.id = p_exam_id;
    if (p_item ->> 'updated_at')::timestamptz < v_exam.crm_modified_at then
        return tallybook.became(p_item, p_exam_id, 'older');
    elsif (p_item ->> 'archived')::boolean then
        return tallybook.lose_mock_exam(v_exam, p_item);
    end if;
    v_texts := (p_item -> 'texts') - tallybook.frozen_by_others('mock_exam', p_exam_id, 'refused_value');
    v_ours := tallybook.mock_exam_mirror(v_exam);
    v_edits := tallybook.remote_edits(v_ours, v_exam.crm_base, v_exam.crm_sent, v_texts);
    -- Our count is of bookings; whatever is typed there is written over.
    v_edits := v_edits - 'total_bookings';

    if v_edits ?| tallybook.schedule_fields() then
        select jsonb_object_agg(f, coalesce(v_edits -> f, v_ours -> f)) into v_wanted
        from unnest(tallybook.schedule_fields()) f;
        if v_wanted <> p_item -> 'schedule' -> 'texts' then
            -- Ours differs in another part of the schedule: which instants the mixture means, the program computes.
            return tallybook.became(p_item, p_exam_id, 'need', null, jsonb_build_object('schedule', v_wanted));
        end if;
        v_refusal := tallybook.move_session(p_exam_id, (p_item -> 'schedule') - 'texts');
        if v_refusal is null then
            v_taken := v_taken || (select jsonb_object_agg(f, v_edits -> f) from unnest(tallybook.schedule_fields()) f
                                   where v_edits ? f);
        else
            v_refused := v_refused || (select jsonb_object_agg(f, v_refusal)
                                       from unnest(tallybook.schedule_fields()) f where v_edits ? f);
        end if;
    end if;
    -- The time of opening before what may need it.
    foreach v_field in array array['scheduled_activation_datetime', 'is_active', 'mock_type', 'mock_set', 'address',
                                   'capacity'] loop
        continue when not v_edits ? v_field;
        if p_item -> 'unreadable' ? v_field then
            v_refusal := jsonb_build_object('code', 'VALIDATION_ERROR', 'problem', p_item -> 'unreadable' ->> v_field);
        else
            v_refusal := tallybook.set_mock_exam_text(p_exam_id, v_field, v_edits ->> v_field);
        end if;
        if v_refusal is null then
            v_taken := v_taken || jsonb_build_object(v_field, v_edits -> v_field);
        else
            v_refused := v_refused || jsonb_build_object(v_field, v_refusal);
        end if;
    end loop;

    v_texts := v_texts - array(select jsonb_object_keys(v_refused));
    update tallybook.mock_exams e
    set hubspot_id = v_hubspot_id, crm_unknown = false,
        archived_at = case when e.crm_base ->> 'archived' = 'true' then null else e.archived_at end,
        crm_base = (e.crm_base || v_texts) - 'archived',
        crm_sent = tallybook.without_agreed(e.crm_sent, tallybook.mock_exam_mirror(e), v_texts),
        crm_modified_at = (p_item ->> 'updated_at')::timestamptz,
        updated_at = case when v_taken <> '{}' or e.capacity <> v_exam.capacity
                          or e.crm_base ->> 'archived' = 'true' then pg_catalog.clock_timestamp()
                     else e.updated_at end,
        synced_at = case when tallybook.mock_exam_mirror(e) @> ((p_item -> 'texts') - 'tallybook_id')
                    then pg_catalog.clock_timestamp() else e.synced_at end
    where e.id = p_exam_id
    returning * into v_after;

    for v_field in select jsonb_object_keys(v_refused) loop
        perform tallybook.open_conflict('mock_exam', p_exam_id, v_field, 'refused_value', v_ours ->> v_field,
            p_item -> 'texts' ->> v_field, v_refused -> v_field, true);
        perform tallybook.keep_answer('mock_exam', p_exam_id, v_field, 'refused_value', p_item);
    end loop;
    -- Staff decide about sessions there; what we had and they did not know is shown to them. Not what became of ours
    -- while theirs was refused: the seats a capacity was lowered to are nobody's wish.
    v_both := array(select t from jsonb_object_keys(v_taken) t
                    where v_exam.crm_base ? t and v_ours ->> t is distinct from v_exam.crm_base ->> t
                        and not tallybook.is_frozen('mock_exam', p_exam_id, t));
    perform tallybook.close_conflicts('mock_exam', p_exam_id, 'refused_value',
        array(select jsonb_object_keys(v_texts)), 'no longer refused');
    perform tallybook.close_conflicts('mock_exam', p_exam_id, 'deleted', array['record'], 'it is there');
    foreach v_field in array v_both loop
        perform tallybook.open_conflict('mock_exam', p_exam_id, v_field, 'both_changed', v_ours ->> v_field,
            v_taken ->> v_field, jsonb_build_object('kept', 'theirs'), false);
    end loop;
    if v_taken <> '{}' then
        perform tallybook.record('mock_exam.edited', 'mock_exam', p_exam_id, null,
            coalesce(p_item ->> 'edited_by', 'hubspot'), (
                select jsonb_object_agg(t.key, jsonb_build_object('from', v_ours -> t.key, 'to', t.value))
                from jsonb_each(v_taken) t), null);
    end if;
    perform tallybook.note_mock_exam(p_exam_id,
        (v_after.crm_base, v_after.updated_at) is distinct from (v_exam.crm_base, v_exam.updated_at), p_importing);
    return tallybook.became(p_item, p_exam_id, 'absorbed',
        case when v_refused <> '{}' then 'refused: ' || array_to_string(array(select jsonb_object_keys(v_refused)), ', ') end,
        null);
end
$$;

-- The students who are in the way of moving these sessions: those with live bookings, where an answer shows another
-- time than ours.
create function tallybook.students_to_move(p_answers jsonb)
returns uuid[]
language sql stable
as $$
    select coalesce(array_agg(distinct b.contact_id), '{}')
    from jsonb_array_elements(p_answers) r
    join tallybook.mock_exams e on e.id = tallybook.mock_exam_of(r)
    join tallybook.bookings b on b.mock_exam_id = e.id and b.status <> 'Cancelled'
    where exists (select from unnest(tallybook.schedule_fields()) f
                  where r -> 'texts' ? f
                      and r -> 'texts' ->> f is distinct from tallybook.mock_exam_mirror(e) ->> f)
$$;

-- Locks what merging these answers needs, in the order of locks: students first, read unlocked, and read again under
-- the sessions' locks. A new student means starting again, at most five times.
create function tallybook.lock_sessions(p_answers jsonb)
returns void
language plpgsql volatile
as $$
declare
    v_contacts uuid[];
begin
    for i in 1..5 loop
        begin
            v_contacts := tallybook.students_to_move(p_answers);
            perform from tallybook.contacts c where c.id = any (v_contacts) order by c.id for no key update;
            perform from tallybook.mock_exams e
            where e.id in (select tallybook.mock_exam_of(r) from jsonb_array_elements(p_answers) r)
            order by e.id for no key update;
            if tallybook.students_to_move(p_answers) <@ v_contacts then
                return;
            end if;
            -- Undone with the block, so that the next round takes its locks in order too.
            raise exception using errcode = 'TB001';
        exception when sqlstate 'TB001' then
            null;
        end;
    end loop;
    raise lock_not_available using message = 'the sessions kept getting new students';
end
$$;

-- Most answers say what both sides know: that they were compared is all there is to write. Gives their HubSpot ids. A
-- call of its own, since it waits for nobody and keeps no lock for what follows.
create function tallybook.confirm_equal_mock_exams(p_exams jsonb)
returns setof text
language sql volatile
set search_path = ''
as $$
    with same as materialized (
        select e.id, (r ->> 'updated_at')::timestamptz as at
        from jsonb_array_elements(p_exams) r
        join tallybook.mock_exams e on e.hubspot_id = r ->> 'hubspot_id'
        where not (r ->> 'archived')::boolean and e.crm_modified_at <= (r ->> 'updated_at')::timestamptz
            and e.crm_base @> (r -> 'texts') and e.crm_base ->> 'archived' is null
            and tallybook.mock_exam_mirror(e) @> ((r -> 'texts') - 'tallybook_id')
            and not exists (select from tallybook.sync_conflicts c
                            where c.object_type = 'mock_exam' and c.object_id = e.id and c.resolved_at is null)
        order by e.id
        for no key update of e skip locked
    )
    update tallybook.mock_exams e
    set synced_at = pg_catalog.clock_timestamp(), crm_modified_at = s.at
    from same s where e.id = s.id
    returning e.hubspot_id
$$;

-- p_exams: [{hubspot_id, tallybook_id, updated_at, archived, texts: {property: text}, unreadable: {property: problem},
-- schedule: {texts, ...}, first: {...}, problems: []}] as hubspot/session_fields.py makes them. One answer that fails
-- harms no other.
create function tallybook.absorb_mock_exams(p_exams jsonb, p_importing boolean)
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

-- What HubSpot says a session requires, merged: what was added or taken away there since it was last read is so here
-- too. p_required: {hubspot id: [hubspot ids]}. Gives the required records that are not stored.
create function tallybook.absorb_prerequisites(p_required jsonb)
returns setof text
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
begin
    perform from tallybook.mock_exams e where e.hubspot_id in (select jsonb_object_keys(p_required))
    order by e.id for no key update;
    delete from tallybook.mock_exam_prerequisites p
    using jsonb_each(p_required) r, tallybook.mock_exams e, tallybook.mock_exams q
    where e.hubspot_id = r.key and p.mock_exam_id = e.id and q.id = p.prerequisite_id
        and coalesce(e.crm_base -> 'prerequisites', '[]') ? q.hubspot_id and not r.value ? q.hubspot_id;
    insert into tallybook.mock_exam_prerequisites (mock_exam_id, prerequisite_id)
    select e.id, q.id
    from jsonb_each(p_required) r
    join tallybook.mock_exams e on e.hubspot_id = r.key
    cross join jsonb_array_elements_text(r.value) n
    join tallybook.mock_exams q on q.hubspot_id = n and q.id <> e.id
    where not coalesce(e.crm_base -> 'prerequisites', '[]') ? n
    order by 1, 2
    on conflict do nothing;
    -- Only what could be taken counts as read: the rest is taken once it is stored.
    update tallybook.mock_exams e
    set crm_base = e.crm_base || jsonb_build_object('prerequisites', k.known)
    from jsonb_each(p_required) r
    cross join lateral (
        select coalesce(jsonb_agg(n order by n), '[]') as known from jsonb_array_elements_text(r.value) n
        where exists (select from tallybook.mock_exams q where q.hubspot_id = n)) k
    where e.hubspot_id = r.key and e.crm_base -> 'prerequisites' is distinct from k.known;
    return query
    select distinct n from jsonb_each(p_required) r cross join jsonb_array_elements_text(r.value) n
    where not exists (select from tallybook.mock_exams q where q.hubspot_id = n);
end
$$;

-- -- bookings -----------------------------------------------------------------------------------------------------

create function tallybook.booking_of(p_item jsonb)
returns uuid
language sql stable
as $$
    select coalesce(
        (select b.id from tallybook.bookings b where b.hubspot_id = p_item ->> 'hubspot_id'),
        (select b.id from tallybook.bookings b
         where b.id = tallybook.uuid_or_null(p_item ->> 'tallybook_id') and b.hubspot_id is null))
$$;

-- Undoes a cancellation: takes the seat again and spends again, if a booking made now would be granted. Staff's
-- privileges are not assumed; only what nobody had to pay for stays unpaid, and what was never given back is not
-- spent twice.
create function tallybook.reinstate_booking(p_booking_id uuid, p_actor text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_booking tallybook.bookings := tallybook.lock_booking(p_booking_id, null);
    v_exam tallybook.mock_exams;
    v_type tallybook.mock_types;
    v_now timestamptz := pg_catalog.clock_timestamp();
    v_answer tallybook.answer;
    v_credit jsonb;
    v_paid boolean;
begin
    select * into v_exam from tallybook.mock_exams e where e.id = v_booking.mock_exam_id;
    select * into v_type from tallybook.mock_types t where t.name = v_exam.mock_type;
    if v_booking.status <> 'Cancelled' then
        return tallybook.grant_answer('already', tallybook.booking_json(v_booking, v_exam) || '{"idempotent": true}');
    elsif not exists (select from tallybook.contacts c
                      where c.id = v_booking.contact_id and c.merged_into is null and c.archived_at is null) then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    end if;
    perform tallybook.expire_overdue_holds(v_booking.contact_id, v_now);
    v_answer := tallybook.session_refusal(v_exam, v_type, v_now, false);
    if v_answer.refusal is null then
        v_answer := tallybook.contact_refusal(v_booking.contact_id, v_exam, v_type, false, p_booking_id);
    end if;
    if v_answer.refusal is not null then
        return v_answer;
    end if;
    v_paid := tallybook.refund_of(v_booking, v_type, v_now, true) ? 'entry_id';
    if not v_paid and v_booking.token_used <> 'Admin Override' then
        v_answer := tallybook.choose_credit(v_booking.contact_id, v_type.pays_with);
        if v_answer.refusal is not null then
            return v_answer;
        end if;
        v_credit := v_answer.data;
    end if;
    if v_exam.total_bookings >= v_exam.capacity then
        return tallybook.refuse('EXAM_FULL', jsonb_build_object('capacity', v_exam.capacity));
    end if;
    update tallybook.bookings b
    set status = 'Active', cancelled_at = null, cancelled_by = null, cancel_reason = null, refunded = null,
        attendance = null, grandfathered = false, token_used = coalesce(v_credit ->> 'token_name', b.token_used),
        mock_type = v_exam.mock_type, exam_on = v_exam.exam_on, starts_at = v_exam.starts_at, ends_at = v_exam.ends_at,
        updated_at = v_now
    where b.id = p_booking_id
    returning * into v_booking;
    if v_credit is not null then
        insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, booking_id)
        values (v_booking.contact_id, v_credit ->> 'credit_type', -1, 'booking', p_actor, p_booking_id);
    end if;
    perform tallybook.record('booking.reinstated', 'booking', p_booking_id, v_booking.contact_id, p_actor,
        jsonb_build_object('mock_exam_id', v_exam.id, 'token_used', v_booking.token_used), null);
    perform tallybook.note_changes(array['booking', 'contact', 'mock_exam'],
        array[p_booking_id, v_booking.contact_id, v_exam.id]);
    return tallybook.grant_answer('ok', tallybook.booking_json(v_booking, v_exam)
        || jsonb_build_object('credits_after', tallybook.available_credits(v_booking.contact_id)));
end
$$;

-- Marks whether somebody came: a mark completes a booking, taking it away reopens it. The caller holds the locks.
create function tallybook.mark_booking(p_booking_id uuid, p_status text, p_attendance text, p_actor text)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_booking tallybook.bookings;
begin
    select * into v_booking from tallybook.bookings b where b.id = p_booking_id;
    if v_booking.status = 'Cancelled' then
        return tallybook.refuse('BOOKING_NOT_LIVE', jsonb_build_object('status', v_booking.status));
    elsif (v_booking.status, v_booking.attendance) is distinct from (p_status, p_attendance) then
        update tallybook.bookings b
        set status = p_status, attendance = p_attendance, updated_at = pg_catalog.clock_timestamp()
        where b.id = p_booking_id;
        perform tallybook.record('booking.marked', 'booking', p_booking_id, v_booking.contact_id, p_actor,
            jsonb_build_object('status', p_status, 'attendance', p_attendance), null);
        perform tallybook.note_changes(array['booking'], array[p_booking_id]);
    end if;
    return tallybook.grant_answer('ok', '{}');
end
$$;

-- Does what a status typed in HubSpot commands. The caller holds the locks.
create function tallybook.obey_status(p_booking_id uuid, p_status text, p_actor text)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_booking tallybook.bookings;
begin
    select * into v_booking from tallybook.bookings b where b.id = p_booking_id;
    if p_status = 'Cancelled' then
        return tallybook.cancel_found_booking(p_booking_id, true, p_actor, null, null, false);
    elsif p_status = 'Active' and v_booking.status = 'Cancelled' then
        return tallybook.reinstate_booking(p_booking_id, p_actor);
    elsif p_status = 'Active' then
        return tallybook.mark_booking(p_booking_id, 'Active', null, p_actor);
    elsif p_status = 'Completed' then
        return tallybook.mark_booking(p_booking_id, 'Completed', v_booking.attendance, p_actor);
    end if;
    return tallybook.refuse('VALIDATION_ERROR', '{"field": "is_active", "problem": "is no status"}');
end
$$;

-- Does what an attendance typed in HubSpot commands; p_keeps_status: a status was typed beside it. The caller holds
-- the locks.
create function tallybook.obey_attendance(p_booking_id uuid, p_attendance text, p_keeps_status boolean, p_actor text)
returns tallybook.answer
language plpgsql volatile
as $$
begin
    if p_attendance not in ('Yes', 'No') then
        return tallybook.refuse('VALIDATION_ERROR', '{"field": "attendance", "problem": "must be Yes or No"}');
    end if;
    return tallybook.mark_booking(p_booking_id, case
        when p_attendance is not null then 'Completed'
        when p_keeps_status then (select b.status from tallybook.bookings b where b.id = p_booking_id)
        else 'Active' end, p_attendance, p_actor);
end
$$;

-- Whether HubSpot has to be told about a booking, and whether the outbox knows already.
create function tallybook.note_booking(p_booking_id uuid, p_changed boolean)
returns void
language plpgsql volatile
as $$
declare
    v_booking tallybook.bookings;
begin
    select * into v_booking from tallybook.bookings b where b.id = p_booking_id;
    if (exists (select from unnest(tallybook.unlike_base(tallybook.booking_mirror(v_booking), v_booking.crm_base)) f
                where not tallybook.is_frozen('booking', p_booking_id, f))
            or exists (select from tallybook.contacts c, tallybook.mock_exams e
                       where c.id = v_booking.contact_id and e.id = v_booking.mock_exam_id
                           and (c.hubspot_id <> v_booking.crm_contact_hubspot_id
                                or e.hubspot_id <> v_booking.crm_mock_exam_hubspot_id)))
            and (p_changed or not exists (select from tallybook.outbox o
                                          where o.object_type = 'booking' and o.object_id = p_booking_id)) then
        perform tallybook.note_changes(array['booking'], array[p_booking_id]);
    end if;
end
$$;

-- Somebody gave HubSpot's booking another contact or session: whose seat it is was decided here and is written back,
-- and a person hears of it.
create function tallybook.show_foreign_ends(p_booking tallybook.bookings, p_item jsonb)
returns void
language plpgsql volatile
as $$
declare
    v_contact text := p_item ->> 'contact_hubspot_id';
    v_exam text := p_item ->> 'mock_exam_hubspot_id';
    v_ours record;
begin
    select c.hubspot_id as contact, tallybook.contact_of_record(c.hubspot_id) as contact_id, e.hubspot_id as exam
    into v_ours
    from tallybook.contacts c, tallybook.mock_exams e
    where c.id = p_booking.contact_id and e.id = p_booking.mock_exam_id;
    -- Two records of one person are no other person.
    if v_contact <> p_booking.crm_contact_hubspot_id and v_contact <> v_ours.contact
            and tallybook.contact_of_record(v_contact) is distinct from v_ours.contact_id then
        perform tallybook.open_conflict('booking', p_booking.id, 'contact', 'both_changed', v_ours.contact, v_contact,
            jsonb_build_object('kept', 'ours'), false);
    end if;
    if v_exam <> p_booking.crm_mock_exam_hubspot_id and v_exam <> v_ours.exam then
        perform tallybook.open_conflict('booking', p_booking.id, 'mock_exam', 'both_changed', v_ours.exam, v_exam,
            jsonb_build_object('kept', 'ours'), false);
    end if;
end
$$;

-- Merges one answer into a booking; the caller holds the locks of its contact, its session and itself.
create function tallybook.merge_booking(p_booking_id uuid, p_item jsonb)
returns tallybook.absorbed
language plpgsql volatile
as $$
declare
    v_hubspot_id text := p_item ->> 'hubspot_id';
    v_actor text := coalesce(p_item ->> 'edited_by', 'hubspot');
    v_booking tallybook.bookings;
    v_after tallybook.bookings;
    v_texts jsonb;
    v_ours jsonb;
    v_edits jsonb;
    v_refused jsonb := '{}';
    v_known jsonb;
    v_answer tallybook.answer;
    v_field text;
begin
    select * into v_booking from tallybook.bookings b where b.id = p_booking_id;
    if (p_item ->> 'updated_at')::timestamptz < v_booking.crm_modified_at then
        return tallybook.became(p_item, p_booking_id, 'older');
    elsif (p_item ->> 'archived')::boolean then
        if v_booking.status <> 'Cancelled' then
            perform tallybook.open_conflict('booking', p_booking_id, 'record', 'deleted', v_booking.status, 'deleted',
                jsonb_build_object('hubspot_id', v_hubspot_id, 'what_helps', 'recreate or cancel'), false);
        end if;
        return tallybook.became(p_item, p_booking_id, 'absorbed', 'deleted there');
    end if;
    v_texts := (p_item -> 'texts') - tallybook.frozen_by_others('booking', p_booking_id, 'command_refused');
    v_ours := tallybook.booking_mirror(v_booking);
    v_edits := tallybook.remote_edits(v_ours, v_booking.crm_base, v_booking.crm_sent, v_texts);
    -- What an import found about a refund and what HubSpot says now are the same thing: we know no better.
    if v_booking.status = 'Cancelled' and v_booking.refunded is null then
        v_edits := v_edits - array['token_refunded', 'token_refunded_at', 'token_refund_admin'];
    end if;

    if not p_item ? 'edited_by' and exists (
            select from unnest(array['is_active', 'attendance']) f
            where v_edits ? f and not exists (
                select from tallybook.sync_conflicts c
                where c.object_type = 'booking' and c.object_id = p_booking_id and c.kind = 'command_refused'
                    and c.field = f and c.resolved_at is null and c.theirs is not distinct from v_edits ->> f)) then
        -- Who commands is asked first.
        return tallybook.became(p_item, p_booking_id, 'need', null, '{"editor": true}');
    end if;

    foreach v_field in array array['is_active', 'attendance'] loop
        continue when not v_edits ? v_field;
        -- A refused command is never tried again by itself.
        select c.details into v_known from tallybook.sync_conflicts c
        where c.object_type = 'booking' and c.object_id = p_booking_id and c.kind = 'command_refused'
            and c.field = v_field and c.resolved_at is null and c.theirs is not distinct from v_edits ->> v_field;
        if found then
            v_refused := v_refused || jsonb_build_object(v_field, v_known);
            continue;
        end if;
        v_answer := case v_field when 'is_active'
            then tallybook.obey_status(p_booking_id, v_edits ->> 'is_active', v_actor)
            else tallybook.obey_attendance(p_booking_id, v_edits ->> 'attendance', v_edits ? 'is_active', v_actor) end;
        if v_answer.refusal is not null then
            v_refused := v_refused || jsonb_build_object(v_field,
                jsonb_build_object('code', v_answer.refusal, 'details', v_answer.details));
            perform tallybook.open_conflict('booking', p_booking_id, v_field, 'command_refused', v_ours ->> v_field,
                v_edits ->> v_field, v_refused -> v_field, true);
        end if;
    end loop;

    v_texts := v_texts - array(select jsonb_object_keys(v_refused));
    update tallybook.bookings b
    set hubspot_id = v_hubspot_id, crm_unknown = false, crm_base = b.crm_base || v_texts,
        crm_sent = tallybook.without_agreed(b.crm_sent, tallybook.booking_mirror(b), v_texts),
        crm_modified_at = (p_item ->> 'updated_at')::timestamptz,
        crm_contact_hubspot_id = coalesce(p_item ->> 'contact_hubspot_id', b.crm_contact_hubspot_id),
        crm_mock_exam_hubspot_id = coalesce(p_item ->> 'mock_exam_hubspot_id', b.crm_mock_exam_hubspot_id),
        synced_at = case when tallybook.booking_mirror(b) @> ((p_item -> 'texts') - 'tallybook_id')
                    then pg_catalog.clock_timestamp() else b.synced_at end
    where b.id = p_booking_id
    returning * into v_after;
    perform tallybook.close_conflicts('booking', p_booking_id, 'command_refused',
        array(select jsonb_object_keys(v_texts)), 'no longer typed there');
    perform tallybook.close_conflicts('booking', p_booking_id, 'deleted', array['record'], 'it is there');
    -- What a student decided is ours; what was typed over it is shown to a person before it is written over. Of somebody
    -- who was forgotten nothing is kept.
    for v_field in
        select f from unnest(array['booking_id', 'token_used', 'attending_location', 'dominant_hand', 'token_refunded']) f
        where v_edits ? f
            and not exists (select from tallybook.contacts c
                            where c.id = v_booking.contact_id and c.erased_at is not null)
    loop
        perform tallybook.open_conflict('booking', p_booking_id, v_field, 'both_changed', v_ours ->> v_field,
            v_edits ->> v_field, jsonb_build_object('kept', 'ours'), false);
    end loop;
    perform tallybook.show_foreign_ends(v_booking, p_item);
    perform tallybook.note_booking(p_booking_id, v_after.crm_base is distinct from v_booking.crm_base);
    return tallybook.became(p_item, p_booking_id, 'absorbed', case when v_refused <> '{}' then 'refused: '
        || (select string_agg(r.value ->> 'code', ', ') from jsonb_each(v_refused) r) end);
end
$$;

-- Why HubSpot's booking cannot be ours, for a person to look at; a cancelled one harms nobody.
create function tallybook.refuse_remote_booking(p_item jsonb, p_code text, p_details jsonb)
returns tallybook.absorbed
language plpgsql volatile
as $$
begin
    if p_item ->> 'status' <> 'Cancelled' then
        perform tallybook.open_conflict('booking', tallybook.stand_in('booking', p_item ->> 'hubspot_id'), 'record',
            'handmade_refused', null, p_item ->> 'hubspot_id',
            jsonb_build_object('code', p_code, 'details', p_details,
                'contact_hubspot_id', p_item -> 'contact_hubspot_id',
                'mock_exam_hubspot_id', p_item -> 'mock_exam_hubspot_id'), false);
        -- Without the text that names the student: nobody would find it here when the person has to be forgotten.
        perform tallybook.keep_answer('booking', tallybook.stand_in('booking', p_item ->> 'hubspot_id'), 'record',
            'handmade_refused', p_item #- '{texts,booking_id}');
    end if;
    return tallybook.became(p_item, null, 'not_stored', p_code);
end
$$;

-- A booking that was made before Tallybook: taken as it is, whatever rules came later. One that was paid gets the credit
-- it cost and the spend of it, so that cancelling gives it back and no balance changes. The caller holds the locks.
create function tallybook.import_booking(p_item jsonb, p_contact_id uuid, p_exam_id uuid)
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
    -- The texts of two contacts may be the same; the one who comes second gets a number.
    for i in 2..1000000 loop
        exit when not exists (select from tallybook.bookings b where b.booking_id = v_text collate "C");
        v_text := coalesce(p_item -> 'texts' ->> 'booking_id', v_names.text_used) || ' (' || i || ')';
    end loop;
    if v_is_live and v_exam.total_bookings >= v_exam.capacity then
        update tallybook.mock_exams e set capacity = e.total_bookings + 1, updated_at = v_now where e.id = p_exam_id;
    end if;
    insert into tallybook.bookings (id, hubspot_id, booking_id, contact_id, mock_exam_id, original_mock_exam_id, ordinal,
        mock_type, exam_on, starts_at, ends_at, status, token_used, attendance, attending_location, dominant_hand,
        idempotency_key, grandfathered, booked_by, cancelled_at, cancelled_by, crm_modified_at, crm_base,
        crm_contact_hubspot_id, crm_mock_exam_hubspot_id, created_at, synced_at)
    values (v_id, p_item ->> 'hubspot_id', v_text, p_contact_id, p_exam_id, p_exam_id, v_names.ordinal,
        v_exam.mock_type, v_exam.exam_on, v_exam.starts_at, v_exam.ends_at, p_item ->> 'status',
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
        coalesce((p_item ->> 'created_at')::timestamptz, v_now), v_now);
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

-- A booking made by hand in HubSpot: booked as an Admin Override, if seat, day and overlap allow.
create function tallybook.take_handmade_booking(p_item jsonb, p_contact_id uuid, p_exam_id uuid)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_answer tallybook.answer;
    v_id uuid;
begin
    v_answer := tallybook.book_seat(p_contact_id, null, null, null, p_exam_id::text, p_item ->> 'attending_location',
        (p_item ->> 'dominant_hand')::boolean, coalesce(p_item ->> 'edited_by', 'hubspot'), 'made by hand in HubSpot',
        null, null, null, null, false);
    if v_answer.refusal is not null then
        return v_answer;
    elsif v_answer.outcome <> 'created' then
        return tallybook.refuse('DUPLICATE_BOOKING', jsonb_build_object('booking_id', v_answer.data -> 'booking_id'));
    end if;
    v_id := (v_answer.data ->> 'id')::uuid;
    if p_item ->> 'status' = 'Completed' or p_item ->> 'attendance' is not null then
        perform tallybook.mark_booking(v_id, 'Completed', p_item ->> 'attendance',
            coalesce(p_item ->> 'edited_by', 'hubspot'));
    end if;
    update tallybook.bookings b
    set hubspot_id = p_item ->> 'hubspot_id', crm_modified_at = (p_item ->> 'updated_at')::timestamptz,
        crm_base = p_item -> 'texts', crm_contact_hubspot_id = p_item ->> 'contact_hubspot_id',
        crm_mock_exam_hubspot_id = p_item ->> 'mock_exam_hubspot_id'
    where b.id = v_id;
    return v_answer;
end
$$;

-- Whether a booking was there before the first import began; until one does, all were.
create function tallybook.predates_import(p_created_at timestamptz)
returns boolean
language sql stable
as $$
    select coalesce((select p_created_at < (s.value ->> 'started_at')::timestamptz
                     from tallybook.sync_state s where s.name = 'first_import'), true)
$$;

-- A booking HubSpot shows for the first time. The caller holds the locks of its contact and its session.
create function tallybook.meet_booking(p_item jsonb, p_importing boolean)
returns tallybook.absorbed
language plpgsql volatile
as $$
declare
    v_hubspot_id text := p_item ->> 'hubspot_id';
    v_contact_id uuid := tallybook.contact_of_record(p_item ->> 'contact_hubspot_id');
    v_exam_id uuid;
    v_answer tallybook.answer;
    v_id uuid;
    -- Only Tallybook writes its ids: such a booking was granted and paid by the rules, in an hour that is forgotten.
    v_imported boolean := tallybook.predates_import((p_item ->> 'created_at')::timestamptz)
        or tallybook.uuid_or_null(p_item ->> 'tallybook_id') is not null;
begin
    select e.id into v_exam_id from tallybook.mock_exams e where e.hubspot_id = p_item ->> 'mock_exam_hubspot_id';
    if (p_item ->> 'archived')::boolean then
        perform tallybook.close_conflicts('booking', tallybook.stand_in('booking', v_hubspot_id), 'handmade_refused',
            array['record'], 'deleted there');
        return tallybook.became(p_item, null, 'not_stored', 'archived');
    elsif exists (select from tallybook.bookings b
                  where b.id = tallybook.uuid_or_null(p_item ->> 'tallybook_id')) then
        return tallybook.became(p_item, null, 'not_stored', 'its tallybook_id is that of another record');
    elsif exists (select from tallybook.sync_conflicts c
                  where c.object_type = 'booking' and c.object_id = tallybook.stand_in('booking', v_hubspot_id)
                      and c.kind = 'handmade_refused' and not p_item ? 'again'
                      and (c.resolved_at is null or c.resolution in ('dismiss', 'ours'))
                      and (c.answer ->> 'updated_at')::timestamptz >= (p_item ->> 'updated_at')::timestamptz
                      and (c.resolved_at is not null or coalesce(c.details ->> 'code', '') not in (
                           'CONTACT_NOT_FOUND', 'EXAM_NOT_FOUND', 'VALIDATION_ERROR'))) then
        -- Refused as it is; looked at again when it changes.
        return tallybook.became(p_item, null, 'not_stored', 'refused before');
    elsif jsonb_array_length(p_item -> 'problems') > 0 then
        return tallybook.refuse_remote_booking(p_item, 'VALIDATION_ERROR', p_item -> 'problems');
    elsif v_contact_id is null or v_exam_id is null then
        if p_item ? 'looked_up' then
            return tallybook.refuse_remote_booking(p_item,
                case when v_contact_id is null then 'CONTACT_NOT_FOUND' else 'EXAM_NOT_FOUND' end, '{}');
        end if;
        return tallybook.became(p_item, null, 'need', null, jsonb_build_object(
            'contact', case when v_contact_id is null then p_item ->> 'contact_hubspot_id' end,
            'mock_exam', case when v_exam_id is null then p_item ->> 'mock_exam_hubspot_id' end));
    elsif v_imported then
        v_id := tallybook.import_booking(p_item, v_contact_id, v_exam_id);
        if not p_importing then
            perform tallybook.note_mock_exam(v_exam_id, true, false);
        end if;
    elsif p_item ->> 'status' = 'Cancelled' then
        return tallybook.became(p_item, null, 'not_stored', 'made by hand and cancelled again');
    elsif not p_item ? 'edited_by' then
        return tallybook.became(p_item, null, 'need', null, '{"editor": true}');
    else
        v_answer := tallybook.take_handmade_booking(p_item, v_contact_id, v_exam_id);
        if v_answer.refusal is not null then
            return tallybook.refuse_remote_booking(p_item, v_answer.refusal, v_answer.details);
        end if;
        v_id := (v_answer.data ->> 'id')::uuid;
    end if;
    perform tallybook.close_conflicts('booking', tallybook.stand_in('booking', v_hubspot_id), 'handmade_refused',
        array['record'], 'taken');
    perform tallybook.note_booking(v_id, v_imported);
    return tallybook.became(p_item, v_id, 'absorbed');
end
$$;

-- The contacts, sessions and bookings that answers are about, as they are now.
create function tallybook.parties_of(
    p_answers jsonb, out contact_ids uuid[], out exam_ids uuid[], out booking_ids uuid[]
)
language sql stable
as $$
    select coalesce(array_agg(distinct coalesce(b.contact_id, tallybook.contact_of_record(r ->> 'contact_hubspot_id')))
                    filter (where coalesce(b.contact_id, tallybook.contact_of_record(r ->> 'contact_hubspot_id'))
                                  is not null), '{}'),
        coalesce(array_agg(distinct coalesce(b.mock_exam_id, e.id))
                 filter (where coalesce(b.mock_exam_id, e.id) is not null), '{}'),
        coalesce(array_agg(distinct b.id) filter (where b.id is not null), '{}')
    from jsonb_array_elements(p_answers) r
    left join tallybook.bookings b on b.id = tallybook.booking_of(r)
    left join tallybook.mock_exams e on e.hubspot_id = r ->> 'mock_exam_hubspot_id' and b.id is null
$$;

-- Locks them in the order of locks, and reads again under the locks: a move or a merge means starting again.
create function tallybook.lock_parties(p_answers jsonb)
returns void
language plpgsql volatile
as $$
declare
    v_before record;
begin
    for i in 1..5 loop
        begin
            v_before := tallybook.parties_of(p_answers);
            perform from tallybook.contacts c where c.id = any (v_before.contact_ids) order by c.id for no key update;
            perform from tallybook.mock_exams e where e.id = any (v_before.exam_ids) order by e.id for no key update;
            perform from tallybook.bookings b where b.id = any (v_before.booking_ids) order by b.id for no key update;
            if tallybook.parties_of(p_answers) = v_before then
                return;
            end if;
            raise exception using errcode = 'TB001';
        exception when sqlstate 'TB001' then
            null;
        end;
    end loop;
    raise lock_not_available using message = 'the bookings kept moving';
end
$$;

-- As confirm_equal_mock_exams.
create function tallybook.confirm_equal_bookings(p_bookings jsonb)
returns setof text
language sql volatile
set search_path = ''
as $$
    with same as materialized (
        select b.id, (r ->> 'updated_at')::timestamptz as at
        from jsonb_array_elements(p_bookings) r
        join tallybook.bookings b on b.hubspot_id = r ->> 'hubspot_id'
        where not (r ->> 'archived')::boolean and b.crm_modified_at <= (r ->> 'updated_at')::timestamptz
            and b.crm_base @> (r -> 'texts')
            and tallybook.booking_mirror(b) @> ((r -> 'texts') - 'tallybook_id')
            and coalesce(r ->> 'contact_hubspot_id' = b.crm_contact_hubspot_id, true)
            and coalesce(r ->> 'mock_exam_hubspot_id' = b.crm_mock_exam_hubspot_id, true)
            and not exists (select from tallybook.sync_conflicts c
                            where c.object_type = 'booking' and c.object_id = b.id and c.resolved_at is null)
        order by b.id
        for no key update of b skip locked
    )
    update tallybook.bookings b
    set synced_at = pg_catalog.clock_timestamp(), crm_modified_at = s.at
    from same s where b.id = s.id
    returning b.hubspot_id
$$;

-- p_bookings: as hubspot/booking_fields.py makes them. One answer that fails harms no other.
create function tallybook.absorb_bookings(p_bookings jsonb, p_importing boolean)
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
            v_done := case when v_id is null then tallybook.meet_booking(v_item, p_importing)
                      else tallybook.merge_booking(v_id, v_item) end;
        exception when integrity_constraint_violation or data_exception then
            v_done := tallybook.became(v_item, v_id, 'not_stored', sqlstate || ': ' || sqlerrm);
        end;
        return next v_done;
    end loop;
end
$$;

-- Which of these records of HubSpot's are ours with both ends known: their associations need not be read.
create function tallybook.joined_bookings(p_hubspot_ids text[])
returns setof text
language sql stable
set search_path = ''
as $$
    select b.hubspot_id from tallybook.bookings b
    where b.hubspot_id = any (p_hubspot_ids)
        and b.crm_contact_hubspot_id is not null and b.crm_mock_exam_hubspot_id is not null
$$;

-- After an import: puts sessions that HubSpot shows otherwise, such as with another number of bookings, into the outbox,
-- p_limit at a time in the order of ids. Gives where to go on; NULL: there are no more.
create function tallybook.note_bookings_counted(p_after uuid, p_limit integer)
returns uuid
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_ids uuid[];
    v_dirty uuid[];
begin
    select array_agg(e.id order by e.id) into v_ids
    from (select e.id from tallybook.mock_exams e where p_after is null or e.id > p_after
          order by e.id limit p_limit) e;
    select coalesce(array_agg(e.id), '{}') into v_dirty from tallybook.mock_exams e
    where e.id = any (v_ids) and e.hubspot_id is not null and e.archived_at is null
        and tallybook.unlike_base(tallybook.mock_exam_mirror(e), e.crm_base) <> '{}'
        and not exists (select from tallybook.outbox o where o.object_type = 'mock_exam' and o.object_id = e.id);
    perform tallybook.note_changes(array_fill('mock_exam'::text, array[cardinality(v_dirty)]), v_dirty);
    return v_ids[p_limit];
end
$$;

-- -- what a person decides ----------------------------------------------------------------------------------------

-- Settled as the person decided, before anything that looks at open conflicts goes on.
create function tallybook.settle_conflict(p_conflict tallybook.sync_conflicts, p_choice text, p_actor text)
returns void
language sql volatile
as $$
    update tallybook.sync_conflicts c
    set resolved_at = pg_catalog.clock_timestamp(), resolved_by = p_actor, resolution = p_choice
    where c.id = (p_conflict).id and c.resolved_at is null
$$;

-- Whether a text a person gives can be this field's. NULL: it can.
create function tallybook.unreadable_text(p_field text, p_text text)
returns text
language plpgsql stable
as $$
begin
    if p_field = 'capacity' and (p_text !~ '^[0-9]{1,4}$' or p_text::integer not between 1 and 1000) is not false then
        return 'must be from 1 to 1000';
    elsif p_field = 'mock_set' and p_text !~ '^[A-H]$' then
        return 'must be A to H';
    elsif p_field = 'is_active' and (p_text in ('true', 'false', 'scheduled')) is not true then
        return 'must be true, false or scheduled';
    elsif p_field = 'mock_type' and not exists (
            select from tallybook.mock_types t where t.name = p_text and t.retired_at is null) then
        return 'is not in the catalog';
    elsif p_field = 'scheduled_activation_datetime' then
        perform p_text::timestamptz;
    elsif p_field = any (tallybook.schedule_fields()) then
        return 'date, times and place change together: edit the session';
    end if;
    return null;
exception when data_exception then
    return 'cannot be read';
end
$$;

-- Gives a session a text a person chose over HubSpot's, and pushes it.
create function tallybook.choose_mock_exam_text(
    p_conflict tallybook.sync_conflicts, p_text text, p_choice text, p_actor text
)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_problem text := tallybook.unreadable_text(p_conflict.field, p_text);
    v_refusal jsonb;
begin
    if v_problem is not null then
        return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'value', 'problem', v_problem));
    end if;
    perform from tallybook.mock_exams e where e.id = p_conflict.object_id for no key update;
    v_refusal := tallybook.set_mock_exam_text(p_conflict.object_id, p_conflict.field, p_text);
    if v_refusal is not null then
        return tallybook.refuse(v_refusal ->> 'code', v_refusal - 'code');
    end if;
    update tallybook.mock_exams e
    set updated_at = pg_catalog.clock_timestamp(),
        crm_base = e.crm_base || case when p_conflict.kind = 'refused_value'
                                 then jsonb_build_object(p_conflict.field, p_conflict.theirs) else '{}' end
    where e.id = p_conflict.object_id;
    perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
    perform tallybook.note_mock_exam(p_conflict.object_id, true, false);
    return tallybook.grant_answer('ok', '{}');
end
$$;

-- Takes HubSpot's value after all, if the rules allow it now; date, times and place go together.
create function tallybook.take_refused_value(p_conflict tallybook.sync_conflicts, p_choice text, p_actor text)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_answer jsonb := p_conflict.answer;
    v_fields text[] := array[p_conflict.field];
    v_done tallybook.absorbed;
    v_left jsonb;
begin
    if p_conflict.field = any (tallybook.schedule_fields()) then
        select array_agg(c.field) into v_fields from tallybook.sync_conflicts c
        where c.object_type = 'mock_exam' and c.object_id = p_conflict.object_id and c.kind = 'refused_value'
            and c.resolved_at is null and c.field = any (tallybook.schedule_fields());
    end if;
    select v_answer || jsonb_build_object(
            'texts', (select jsonb_object_agg(f, v_answer -> 'texts' -> f) from unnest(v_fields) f),
            'updated_at', greatest(e.crm_modified_at, (v_answer ->> 'updated_at')::timestamptz))
    into v_answer
    from tallybook.mock_exams e where e.id = p_conflict.object_id;
    begin
        perform tallybook.lock_sessions(jsonb_build_array(v_answer));
        v_done := tallybook.merge_mock_exam(p_conflict.object_id, v_answer, false);
        select c.details into v_left from tallybook.sync_conflicts c
        where c.id = p_conflict.id and c.resolved_at is null;
        if v_left is not null then
            raise exception using errcode = 'TB002';
        end if;
    exception when sqlstate 'TB002' then
        if v_done.outcome = 'need' then
            -- Our own schedule has changed since: both have to be looked at together again.
            perform tallybook.ask_to_read('mock_exam', array[v_done.hubspot_id], 0);
            return tallybook.refuse('CONFIRMATION_STALE');
        end if;
        return tallybook.refuse(v_left ->> 'code', v_left - 'code');
    end;
    return tallybook.grant_answer('ok', '{}');
end
$$;

-- Locks a session with all its students, in the order of locks.
create function tallybook.lock_session_and_students(p_exam_id uuid)
returns void
language plpgsql volatile
as $$
declare
    v_contacts uuid[];
begin
    for i in 1..5 loop
        begin
            v_contacts := array(select distinct b.contact_id from tallybook.bookings b
                                where b.mock_exam_id = p_exam_id and b.status <> 'Cancelled');
            perform from tallybook.contacts c where c.id = any (v_contacts) order by c.id for no key update;
            perform from tallybook.mock_exams e where e.id = p_exam_id for no key update;
            if not exists (select from tallybook.bookings b
                           where b.mock_exam_id = p_exam_id and b.status <> 'Cancelled'
                               and b.contact_id <> all (v_contacts)) then
                return;
            end if;
            raise exception using errcode = 'TB001';
        exception when sqlstate 'TB001' then
            null;
        end;
    end loop;
    raise lock_not_available using message = 'the session kept getting new students';
end
$$;

-- A session HubSpot has deleted although it has live bookings: made anew there, or cancelled for everybody here.
create function tallybook.decide_deleted_mock_exam(
    p_conflict tallybook.sync_conflicts, p_choice text, p_actor text, p_reason text
)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_bookings uuid[];
    v_booking uuid;
    v_answer tallybook.answer;
begin
    perform tallybook.lock_session_and_students(p_conflict.object_id);
    v_bookings := array(select b.id from tallybook.bookings b
                        where b.mock_exam_id = p_conflict.object_id and b.status <> 'Cancelled' order by b.id);
    perform from tallybook.bookings b where b.id = any (v_bookings) order by b.id for no key update;
    perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
    if p_choice = 'ours' then
        update tallybook.mock_exams e
        set hubspot_id = null, crm_unknown = false, crm_base = '{}', crm_sent = '{}', crm_modified_at = null
        where e.id = p_conflict.object_id;
        update tallybook.bookings b set crm_mock_exam_hubspot_id = null where b.id = any (v_bookings);
        perform tallybook.note_changes(
            array_fill('booking'::text, array[cardinality(v_bookings)]) || 'mock_exam'::text,
            v_bookings || p_conflict.object_id);
        return tallybook.grant_answer('ok', '{}');
    end if;
    foreach v_booking in array v_bookings loop
        v_answer := tallybook.cancel_found_booking(v_booking, true, p_actor, p_reason, null, false);
        if v_answer.refusal is not null then
            return v_answer;
        end if;
    end loop;
    update tallybook.mock_exams e
    set archived_at = pg_catalog.clock_timestamp(), updated_at = pg_catalog.clock_timestamp(),
        crm_base = e.crm_base || '{"archived": "true"}'
    where e.id = p_conflict.object_id;
    return tallybook.grant_answer('ok', jsonb_build_object('cancelled', cardinality(v_bookings)));
end
$$;

create function tallybook.no_such_choice(p_allowed text)
returns tallybook.answer
language sql immutable
as $$
    select tallybook.refuse('VALIDATION_ERROR',
        jsonb_build_object('field', 'choice', 'problem', 'this conflict is resolved with ' || p_allowed))
$$;

create function tallybook.resolve_mock_exam_conflict(
    p_conflict tallybook.sync_conflicts, p_choice text, p_value text, p_actor text, p_reason text
)
returns tallybook.answer
language plpgsql volatile
as $$
begin
    if p_choice = 'dismiss' then
        if p_conflict.freezes and p_conflict.kind = 'refused_value' and p_conflict.field <> 'record' then
            return tallybook.no_such_choice('ours, theirs or a value');
        end if;
        perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
    elsif p_conflict.kind = 'refused_value' and p_conflict.field = 'record' then
        if p_choice <> 'theirs' then
            return tallybook.no_such_choice('theirs (read it again) or dismiss');
        end if;
        perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
        perform tallybook.ask_to_read('mock_exam', array[p_conflict.details ->> 'hubspot_id'], 0);
    elsif p_conflict.kind = 'refused_value' and p_choice = 'theirs' then
        return tallybook.take_refused_value(p_conflict, p_choice, p_actor);
    elsif p_conflict.kind = 'refused_value' and p_choice = 'ours' then
        perform from tallybook.mock_exams e where e.id = p_conflict.object_id for no key update;
        -- HubSpot's value is known and decided against: ours is written over it.
        update tallybook.mock_exams e
        set crm_base = e.crm_base || jsonb_build_object(p_conflict.field, p_conflict.theirs)
        where e.id = p_conflict.object_id;
        perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
        perform tallybook.note_mock_exam(p_conflict.object_id, true, false);
    elsif p_conflict.kind in ('refused_value', 'both_changed') and p_choice = 'value' then
        return tallybook.choose_mock_exam_text(p_conflict, p_value, p_choice, p_actor);
    elsif p_conflict.kind = 'both_changed' and p_choice = 'ours' then
        return tallybook.choose_mock_exam_text(p_conflict, p_conflict.ours, p_choice, p_actor);
    elsif p_conflict.kind = 'both_changed' and p_choice = 'theirs' then
        perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
    elsif p_conflict.kind = 'deleted' and p_choice in ('ours', 'theirs') then
        return tallybook.decide_deleted_mock_exam(p_conflict, p_choice, p_actor, p_reason);
    else
        return tallybook.no_such_choice('dismiss');
    end if;
    return tallybook.grant_answer('ok', '{}');
end
$$;

-- Tries a refused command again, under the rules as they are now.
create function tallybook.retry_command(p_conflict tallybook.sync_conflicts, p_choice text, p_actor text)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_booking tallybook.bookings := tallybook.lock_booking(p_conflict.object_id, null);
    v_answer tallybook.answer;
begin
    v_answer := case p_conflict.field
        when 'is_active' then tallybook.obey_status(v_booking.id, p_conflict.theirs, p_actor)
        else tallybook.obey_attendance(v_booking.id, p_conflict.theirs, false, p_actor) end;
    if v_answer.refusal is null then
        update tallybook.bookings b
        set crm_base = b.crm_base || jsonb_build_object(p_conflict.field, p_conflict.theirs)
        where b.id = v_booking.id;
        perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
        perform tallybook.note_booking(v_booking.id, true);
    end if;
    return v_answer;
end
$$;

-- Tries again to take a booking made by hand, as HubSpot last showed it.
create function tallybook.retry_handmade(p_conflict tallybook.sync_conflicts)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_answer jsonb := p_conflict.answer || '{"again": true}';
    v_done tallybook.absorbed;
    v_left jsonb;
begin
    perform tallybook.lock_parties(jsonb_build_array(v_answer));
    v_done := tallybook.meet_booking(v_answer, false);
    if v_done.object_id is not null then
        return tallybook.grant_answer('ok', jsonb_build_object('id', v_done.object_id));
    end if;
    -- Its contact, its session or its associations may have come in the meantime.
    perform tallybook.ask_to_read('booking', array[p_conflict.theirs], 0);
    select c.details into v_left from tallybook.sync_conflicts c where c.id = p_conflict.id;
    return tallybook.refuse(v_left ->> 'code', jsonb_build_object('details', v_left -> 'details'));
end
$$;

create function tallybook.resolve_booking_conflict(
    p_conflict tallybook.sync_conflicts, p_choice text, p_value text, p_actor text, p_reason text
)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_booking tallybook.bookings;
    v_text text := case p_choice when 'value' then p_value else p_conflict.theirs end;
    v_answer tallybook.answer;
begin
    if p_conflict.kind = 'handmade_refused' then
        if p_choice = 'theirs' then
            return tallybook.retry_handmade(p_conflict);
        elsif p_choice <> 'dismiss' then
            return tallybook.no_such_choice('theirs (try again) or dismiss');
        end if;
    elsif p_conflict.kind = 'command_refused' then
        if p_choice = 'theirs' then
            return tallybook.retry_command(p_conflict, p_choice, p_actor);
        elsif p_choice <> 'ours' then
            return tallybook.no_such_choice('ours or theirs (try again)');
        end if;
        v_booking := tallybook.lock_booking(p_conflict.object_id, null);
        update tallybook.bookings b
        set crm_base = b.crm_base || jsonb_build_object(p_conflict.field, p_conflict.theirs)
        where b.id = v_booking.id;
        perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
        perform tallybook.note_booking(v_booking.id, true);
    elsif p_conflict.kind = 'both_changed' and p_choice in ('theirs', 'value') then
        v_booking := tallybook.lock_booking(p_conflict.object_id, null);
        if p_conflict.field = 'attending_location' then
            update tallybook.bookings b set attending_location = v_text, updated_at = pg_catalog.clock_timestamp()
            where b.id = v_booking.id;
        elsif p_conflict.field = 'dominant_hand' and v_text in ('true', 'false') then
            update tallybook.bookings b set dominant_hand = v_text::boolean, updated_at = pg_catalog.clock_timestamp()
            where b.id = v_booking.id;
        else
            return tallybook.no_such_choice('ours: this never changes after booking');
        end if;
        perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
        perform tallybook.note_booking(v_booking.id, true);
    elsif p_conflict.kind = 'deleted' and p_choice = 'ours' then
        v_booking := tallybook.lock_booking(p_conflict.object_id, null);
        update tallybook.bookings b
        set hubspot_id = null, crm_unknown = false, crm_base = '{}', crm_sent = '{}', crm_modified_at = null,
            crm_contact_hubspot_id = null, crm_mock_exam_hubspot_id = null
        where b.id = v_booking.id;
        perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
        perform tallybook.note_changes(array['booking'], array[v_booking.id]);
    elsif p_conflict.kind = 'deleted' and p_choice = 'theirs' then
        v_answer := tallybook.cancel_found_booking(p_conflict.object_id, true, p_actor, p_reason, null, false);
        if v_answer.refusal is null then
            perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
        end if;
        return v_answer;
    elsif p_choice not in ('dismiss', 'ours') then
        return tallybook.no_such_choice('dismiss');
    end if;
    perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
    return tallybook.grant_answer('ok', '{}');
end
$$;

select tallybook.secure();
