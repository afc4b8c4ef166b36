-- Cancelling and moving: a guarded transition under the same locks as booking, so exactly one of many wins.

select tallybook.begin_migration('20261121000800', 'create_cancel_and_move', '0.1.0');

-- Locks the contact, the sessions (sorted) and the booking of p_booking_id, in that order, and reads them again: a
-- move may have come between. Gives the locked booking, or LOCK_TIMEOUT after five moves in a row.
create function tallybook.lock_booking(p_booking_id uuid, p_also_exam_id uuid)
returns tallybook.bookings
language plpgsql volatile
as $$
declare
    v_before record;
    v_booking tallybook.bookings;
begin
    for i in 1..5 loop
        select b.contact_id, b.mock_exam_id into v_before from tallybook.bookings b where b.id = p_booking_id;
        perform from tallybook.contacts c where c.id = v_before.contact_id for no key update;
        perform from tallybook.mock_exams e where e.id in (v_before.mock_exam_id, p_also_exam_id)
            order by e.id for no key update;
        select * into v_booking from tallybook.bookings b where b.id = p_booking_id for no key update;
        if v_booking.mock_exam_id = v_before.mock_exam_id and v_booking.contact_id = v_before.contact_id then
            return v_booking;
        end if;
    end loop;
    raise lock_not_available using message = 'the booking kept moving';
end
$$;

-- Which booking of the caller's is meant: its UUID, or a refusal. Another student's booking does not exist.
create function tallybook.own_booking(p_contact_id uuid, p_ref text)
returns uuid
language sql stable
as $$
    select b.id from tallybook.bookings b
    where b.id = tallybook.find_booking(p_ref) and (p_contact_id is null or b.contact_id = p_contact_id)
$$;

-- What a cancellation at p_now would give back: {credits_restored, credit_type, entry_id}. The newest spend that has
-- not been reversed, whatever the request or the mock type says today; nothing when the rule of the moment says so.
create function tallybook.refund_of(
    p_booking tallybook.bookings, p_type tallybook.mock_types, p_now timestamptz, p_refund boolean
)
returns jsonb
language sql stable
as $$
    select coalesce((
        select jsonb_build_object('credits_restored', -s.delta, 'credit_type', s.credit_type, 'entry_id', s.id)
        from tallybook.credit_entries s
        where s.booking_id = p_booking.id and s.delta < 0 and s.reverses_entry_id is null
            and not exists (select from tallybook.credit_entries r where r.reverses_entry_id = s.id)
            and coalesce(p_refund, case p_type.refund_rule
                when 'always' then true
                when 'never' then false
                else p_booking.starts_at - make_interval(mins => p_type.refund_cutoff_min) >= p_now end)
        order by s.id desc limit 1
    ), jsonb_build_object('credits_restored', 0, 'credit_type', null))
$$;

create function tallybook.cancellation_json(p_booking tallybook.bookings, p_refund jsonb)
returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'id', p_booking.id, 'booking_id', p_booking.booking_id, 'booking_record_id', p_booking.booking_id,
        'hubspot_id', p_booking.hubspot_id,
        'student_id', (select c.student_id from tallybook.contacts c where c.id = p_booking.contact_id),
        'cancelled_at', tallybook.instant(p_booking.cancelled_at),
        'credits_after', tallybook.available_credits(p_booking.contact_id)
    ) || (p_refund - 'entry_id')
$$;

-- What an earlier cancellation gave back, for everyone who comes after the one who cancelled.
create function tallybook.past_refund_of(p_booking_id uuid)
returns jsonb
language sql stable
as $$
    select coalesce((
        select jsonb_build_object('credits_restored', r.delta, 'credit_type', r.credit_type)
        from tallybook.credit_entries s
        join tallybook.credit_entries r on r.reverses_entry_id = s.id
        where s.booking_id = p_booking_id order by r.id desc limit 1
    ), jsonb_build_object('credits_restored', 0, 'credit_type', null))
$$;

-- The transition itself, for callers that have found the booking and hold no lock yet. Staff may also cancel
-- completed bookings, after the cut-off, and choose whether to refund.
create function tallybook.cancel_found_booking(
    p_booking_id uuid, p_as_staff boolean, p_actor text, p_reason text, p_refund boolean, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_booking tallybook.bookings := tallybook.lock_booking(p_booking_id, null);
    v_type tallybook.mock_types;
    v_now timestamptz := pg_catalog.clock_timestamp();
    v_closes_at timestamptz;
    v_answer tallybook.answer;
    v_refund jsonb;
    v_data jsonb;
begin
    select * into v_type from tallybook.mock_types t where t.name = v_booking.mock_type;
    v_closes_at := v_booking.starts_at - make_interval(mins => v_type.cancellation_closes_min);
    if v_booking.status = 'Cancelled' then
        return tallybook.grant_answer('already', tallybook.cancellation_json(v_booking,
            tallybook.past_refund_of(p_booking_id)) || jsonb_build_object('idempotent', true)
            || case when p_dry_run then '{"dry_run": true, "allowed": false, "refusal": "BOOKING_NOT_LIVE"}'
                    else '{}'::jsonb end);
    elsif not p_as_staff and v_booking.status = 'Completed' then
        v_answer := tallybook.refuse('BOOKING_NOT_LIVE', jsonb_build_object('status', v_booking.status));
    elsif not p_as_staff and v_closes_at <= v_now then
        v_answer := tallybook.refuse('CANCELLATION_CLOSED',
            jsonb_build_object('closed_at', tallybook.instant(v_closes_at)));
    end if;
    if v_answer.refusal is not null and not p_dry_run then
        return v_answer;
    end if;
    v_refund := case when v_answer.refusal is not null then '{"credits_restored": 0, "credit_type": null}'
        else tallybook.refund_of(v_booking, v_type, v_now, case when p_as_staff then p_refund end) end;
    if p_dry_run then
        -- "Do I get my credit back?" is a question, so "no" is an answer, not an error.
        return tallybook.grant_answer('ok', tallybook.cancellation_json(v_booking, v_refund)
            || jsonb_build_object('dry_run', true, 'allowed', v_answer.refusal is null,
                'refusal', v_answer.refusal, 'closes_at', tallybook.instant(v_closes_at)));
    end if;

    update tallybook.bookings b
    set status = 'Cancelled', cancelled_at = v_now, cancelled_by = p_actor, cancel_reason = p_reason,
        attendance = null, refunded = (v_refund ? 'entry_id'), updated_at = v_now
    where b.id = p_booking_id
    returning * into v_booking;
    if v_refund ? 'entry_id' then
        -- The refund goes to whoever owns the booking now; a merge may have moved it since it was paid.
        insert into tallybook.credit_balances (contact_id, credit_type)
        values (v_booking.contact_id, v_refund ->> 'credit_type') on conflict do nothing;
        insert into tallybook.credit_entries
            (contact_id, credit_type, delta, reason, actor, booking_id, reverses_entry_id)
        values (v_booking.contact_id, v_refund ->> 'credit_type', (v_refund ->> 'credits_restored')::integer,
                'refund', p_actor, p_booking_id, (v_refund ->> 'entry_id')::bigint);
    end if;
    v_data := tallybook.cancellation_json(v_booking, v_refund);
    perform tallybook.record('booking.cancelled', 'booking', p_booking_id, v_booking.contact_id, p_actor,
        jsonb_build_object('mock_exam_id', v_booking.mock_exam_id) || (v_refund - 'entry_id'),
        case when p_reason is not null then jsonb_build_object('reason', p_reason) end);
    perform tallybook.note_changes(array['booking', 'contact', 'mock_exam'],
        array[p_booking_id, v_booking.contact_id, v_booking.mock_exam_id]);
    return tallybook.grant_answer('ok', v_data);
end
$$;

create function tallybook.cancel_booking(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text,
    p_booking text, p_as_staff boolean, p_actor text, p_reason text, p_refund boolean,
    p_credential text, p_route text, p_key text, p_fingerprint bytea, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_contact_id uuid;
    v_booking_id uuid;
    v_refusal text;
    v_answer tallybook.answer;
begin
    if not p_as_staff then
        select i.contact_id, i.refusal into v_contact_id, v_refusal
        from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
        if v_refusal is not null then
            return tallybook.refuse(v_refusal);
        end if;
    end if;
    v_booking_id := tallybook.own_booking(v_contact_id, p_booking);
    if v_booking_id is null then
        return tallybook.refuse('BOOKING_NOT_FOUND');
    end if;
    if p_key is not null and not p_dry_run then
        select coalesce(v_contact_id, b.contact_id) into v_contact_id
        from tallybook.bookings b where b.id = v_booking_id;
        v_answer := tallybook.begin_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint);
        if v_answer.replayed is not null then
            return v_answer;
        end if;
    end if;
    v_answer := tallybook.cancel_found_booking(v_booking_id, p_as_staff, p_actor, p_reason, p_refund, p_dry_run);
    if p_key is not null and not p_dry_run and v_answer.refusal is null then
        perform tallybook.end_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint,
            v_answer.outcome, v_answer.data);
    end if;
    return v_answer;
end
$$;

-- Several of one student's own bookings, each with its own result. All sessions are locked first, sorted, so that
-- the single cancellations below find their locks already held in the right order.
create function tallybook.cancel_bookings(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text,
    p_bookings text[], p_actor text, p_reason text,
    p_credential text, p_route text, p_key text, p_fingerprint bytea, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_contact_id uuid;
    v_refusal text;
    v_answer tallybook.answer;
    v_ref text;
    v_booking_id uuid;
    v_results jsonb := '[]';
    v_cancelled integer := 0;
    v_data jsonb;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    if p_key is not null and not p_dry_run then
        v_answer := tallybook.begin_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint);
        if v_answer.replayed is not null then
            return v_answer;
        end if;
    end if;
    perform from tallybook.contacts c where c.id = v_contact_id for no key update;
    -- Under the contact's lock no booking of this contact can move, so this list of sessions stays right.
    perform from tallybook.mock_exams e
    where e.id in (select b.mock_exam_id from tallybook.bookings b
                   where b.id in (select tallybook.own_booking(v_contact_id, r) from unnest(p_bookings) r))
    order by e.id for no key update;
    foreach v_ref in array p_bookings loop
        v_booking_id := tallybook.own_booking(v_contact_id, v_ref);
        if v_booking_id is null then
            v_answer := tallybook.refuse('BOOKING_NOT_FOUND');
        else
            v_answer := tallybook.cancel_found_booking(v_booking_id, false, p_actor, p_reason, null, p_dry_run);
        end if;
        v_cancelled := v_cancelled + (v_answer.outcome = 'ok' and v_answer.refusal is null)::integer;
        v_results := v_results || jsonb_build_array(case when v_answer.refusal is null
            then jsonb_build_object('booking', v_ref, 'success', true, 'data', v_answer.data)
            else jsonb_build_object('booking', v_ref, 'success', false,
                'error', jsonb_build_object('code', v_answer.refusal, 'details', v_answer.details)) end);
    end loop;
    v_data := jsonb_build_object('results', v_results,
        'summary', jsonb_build_object('total', cardinality(p_bookings), 'cancelled', v_cancelled,
            'failed', (select count(*) from jsonb_array_elements(v_results) r where not (r ->> 'success')::boolean)),
        'credits_after', tallybook.available_credits(v_contact_id));
    if p_key is not null and not p_dry_run then
        perform tallybook.end_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint, 'ok', v_data);
    end if;
    return tallybook.grant_answer('ok', v_data);
end
$$;

-- Seat for seat, credit untouched, ids kept; every rule about the new session is checked as if it were booked.
create function tallybook.move_booking(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text,
    p_booking text, p_mock_exam text, p_as_staff boolean, p_actor text,
    p_credential text, p_route text, p_key text, p_fingerprint bytea, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_contact_id uuid;
    v_booking_id uuid;
    v_exam_id uuid;
    v_refusal text;
    v_answer tallybook.answer;
    v_booking tallybook.bookings;
    v_exam tallybook.mock_exams;
    v_type tallybook.mock_types;
    v_from uuid;
    v_now timestamptz;
    v_data jsonb;
begin
    if not p_as_staff then
        select i.contact_id, i.refusal into v_contact_id, v_refusal
        from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
        if v_refusal is not null then
            return tallybook.refuse(v_refusal);
        end if;
    end if;
    v_booking_id := tallybook.own_booking(v_contact_id, p_booking);
    if v_booking_id is null then
        return tallybook.refuse('BOOKING_NOT_FOUND');
    end if;
    select coalesce(v_contact_id, b.contact_id) into v_contact_id from tallybook.bookings b where b.id = v_booking_id;
    if p_key is not null and not p_dry_run then
        v_answer := tallybook.begin_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint);
        if v_answer.replayed is not null then
            return v_answer;
        end if;
    end if;
    v_exam_id := tallybook.find_mock_exam(p_mock_exam);
    if v_exam_id is null then
        return tallybook.refuse('EXAM_NOT_FOUND');
    end if;

    v_booking := tallybook.lock_booking(v_booking_id, v_exam_id);
    select * into v_exam from tallybook.mock_exams e where e.id = v_exam_id;
    select * into v_type from tallybook.mock_types t where t.name = v_exam.mock_type;
    v_now := pg_catalog.clock_timestamp();
    v_from := v_booking.mock_exam_id;

    if v_booking.status = 'Cancelled' or (v_booking.status = 'Completed' and not p_as_staff) then
        return tallybook.refuse('BOOKING_NOT_LIVE', jsonb_build_object('status', v_booking.status));
    elsif v_from = v_exam_id then
        v_data := tallybook.booking_json(v_booking, v_exam) || jsonb_build_object('idempotent', true,
            'credits_after', tallybook.available_credits(v_booking.contact_id));
        -- Kept under its key too: a late retry must not move what has been moved elsewhere since.
        if p_key is not null and not p_dry_run then
            perform tallybook.end_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint, 'already', v_data);
        end if;
        return tallybook.grant_answer('already', v_data);
    elsif v_booking.mock_type <> v_exam.mock_type then
        return tallybook.refuse('MOCK_TYPE_MISMATCH',
            jsonb_build_object('from', v_booking.mock_type, 'to', v_exam.mock_type));
    elsif not p_as_staff and v_booking.starts_at - make_interval(mins => v_type.cancellation_closes_min) <= v_now then
        return tallybook.refuse('CANCELLATION_CLOSED', jsonb_build_object('closed_at', tallybook.instant(
            v_booking.starts_at - make_interval(mins => v_type.cancellation_closes_min))));
    end if;
    v_answer := tallybook.session_refusal(v_exam, v_type, v_now, p_as_staff);
    if v_answer.refusal is null then
        v_answer := tallybook.contact_refusal(v_booking.contact_id, v_exam, v_type, p_as_staff, v_booking_id);
    end if;
    if v_answer.refusal is not null then
        return v_answer;
    elsif v_exam.total_bookings >= v_exam.capacity then
        return tallybook.refuse('EXAM_FULL', jsonb_build_object('capacity', v_exam.capacity));
    end if;
    if not p_dry_run then
        update tallybook.bookings b
        set mock_exam_id = v_exam_id, exam_on = v_exam.exam_on, starts_at = v_exam.starts_at,
            ends_at = v_exam.ends_at, updated_at = v_now
        where b.id = v_booking_id
        returning * into v_booking;
    end if;
    v_data := tallybook.booking_json(v_booking, v_exam) || jsonb_build_object('moved_from_mock_exam_id', v_from,
        'credits_after', tallybook.available_credits(v_booking.contact_id));
    if p_dry_run then
        return tallybook.grant_answer('ok', v_data || '{"dry_run": true}');
    end if;
    perform tallybook.record('booking.moved', 'booking', v_booking_id, v_booking.contact_id, p_actor,
        jsonb_build_object('from_mock_exam_id', v_from, 'to_mock_exam_id', v_exam_id), null);
    if p_key is not null then
        perform tallybook.end_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint, 'ok', v_data);
    end if;
    perform tallybook.note_changes(array['booking', 'mock_exam', 'mock_exam'],
        array[v_booking_id, v_from, v_exam_id]);
    return tallybook.grant_answer('ok', v_data);
end
$$;

-- A new session. The instants come from the caller, who refuses local times that daylight saving skips or doubles.
create function tallybook.create_mock_exam(p_session jsonb, p_prerequisites text[], p_actor text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_exam tallybook.mock_exams;
    v_ref text;
    v_required tallybook.mock_exams;
begin
    if not exists (select from tallybook.mock_types t
                   where t.name = p_session ->> 'mock_type' and t.retired_at is null) then
        return tallybook.refuse('INVALID_MOCK_TYPE', jsonb_build_object('field', 'mock_type', 'allowed',
            (select jsonb_agg(t.name order by t.name) from tallybook.mock_types t where t.retired_at is null)));
    end if;
    -- Everything that can refuse comes before the first write.
    foreach v_ref in array p_prerequisites loop
        select * into v_required from tallybook.mock_exams e where e.id = tallybook.find_mock_exam(v_ref);
        if not found or v_required.archived_at is not null then
            return tallybook.refuse('EXAM_NOT_FOUND', jsonb_build_object('prerequisite', v_ref));
        elsif v_required.ends_at > (p_session ->> 'starts_at')::timestamptz then
            return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'prerequisites',
                'problem', 'must be over before the session starts', 'prerequisite', v_ref));
        end if;
    end loop;
    insert into tallybook.mock_exams (mock_type, mock_set, exam_on, start_time, end_time, time_zone, starts_at, ends_at,
        location, address, capacity, activation, opens_at)
    select r.mock_type, r.mock_set, r.exam_on, r.start_time, r.end_time, r.time_zone, r.starts_at, r.ends_at,
        r.location, r.address, r.capacity, r.activation, r.opens_at
    from jsonb_populate_record(null::tallybook.mock_exams, p_session) r
    returning * into v_exam;
    insert into tallybook.mock_exam_prerequisites (mock_exam_id, prerequisite_id)
    select distinct v_exam.id, tallybook.find_mock_exam(r) from unnest(p_prerequisites) r;
    perform tallybook.record('mock_exam.created', 'mock_exam', v_exam.id, null, p_actor,
        p_session || jsonb_build_object('prerequisites', p_prerequisites), null);
    perform tallybook.note_changes(array['mock_exam'], array[v_exam.id]);
    return tallybook.grant_answer('created', jsonb_build_object(
        'id', v_exam.id, 'mock_exam_id', v_exam.id, 'mock_type', v_exam.mock_type, 'mock_set', v_exam.mock_set,
        'exam_date', v_exam.exam_on, 'start_time', to_char(v_exam.start_time, 'HH24:MI'),
        'end_time', to_char(v_exam.end_time, 'HH24:MI'), 'time_zone', v_exam.time_zone,
        'starts_at', tallybook.instant(v_exam.starts_at), 'ends_at', tallybook.instant(v_exam.ends_at),
        'location', v_exam.location, 'capacity', v_exam.capacity, 'activation', v_exam.activation,
        'opens_at', tallybook.instant(v_exam.opens_at), 'prerequisites', to_jsonb(p_prerequisites)));
end
$$;
