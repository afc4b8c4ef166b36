-- Booking: locks first, then reads, then the time, then the decision, then every write. One call, one commit.

select tallybook.begin_migration('20261121000700', 'create_book_seat', '0.1.0');

-- The rules about the session itself, in the contract's order; NULL: none refuses. The caller holds its lock.
create function tallybook.session_refusal(
    p_exam tallybook.mock_exams, p_type tallybook.mock_types, p_now timestamptz, p_override boolean
)
returns tallybook.answer
language plpgsql stable
as $$
begin
    if p_exam.archived_at is not null then
        return tallybook.refuse('EXAM_NOT_FOUND');
    elsif p_exam.activation = 'inactive' or p_type.retired_at is not null then
        return tallybook.refuse('EXAM_NOT_ACTIVE');
    elsif p_exam.activation = 'scheduled' and p_exam.opens_at > p_now then
        return tallybook.refuse('EXAM_NOT_ACTIVE',
            jsonb_build_object('opens_at', tallybook.instant(p_exam.opens_at)));
    elsif p_exam.starts_at <= p_now then
        return tallybook.refuse('EXAM_IN_PAST',
            jsonb_build_object('starts_at', tallybook.instant(p_exam.starts_at)));
    elsif not p_override and p_exam.starts_at - make_interval(mins => p_type.booking_closes_min) <= p_now then
        return tallybook.refuse('BOOKING_CLOSED', jsonb_build_object('closed_at',
            tallybook.instant(p_exam.starts_at - make_interval(mins => p_type.booking_closes_min))));
    end if;
    return null;
end
$$;

-- The rules about the contact's other bookings; NULL: none refuses. The caller holds the contact's lock.
-- `p_moving` is the booking that would leave.
create function tallybook.contact_refusal(
    p_contact_id uuid, p_exam tallybook.mock_exams, p_type tallybook.mock_types, p_override boolean, p_moving uuid
)
returns tallybook.answer
language plpgsql stable
as $$
declare
    v_other record;
    v_missing text[];
    v_needed integer;
begin
    -- One pass over the contact's live bookings: the same session or day first, then an overlap.
    select b.booking_id, b.starts_at, b.ends_at,
        b.mock_exam_id = p_exam.id or (b.mock_type = p_exam.mock_type and b.exam_on = p_exam.exam_on) as duplicate
    into v_other
    from tallybook.bookings b
    where b.contact_id = p_contact_id and b.status <> 'Cancelled' and b.id is distinct from p_moving
        and (b.mock_exam_id = p_exam.id
             or (b.mock_type = p_exam.mock_type and b.exam_on = p_exam.exam_on)
             or (b.starts_at < p_exam.ends_at and b.ends_at > p_exam.starts_at))
    order by duplicate desc, b.starts_at
    limit 1;
    if found then
        return tallybook.refuse(case when v_other.duplicate then 'DUPLICATE_BOOKING' else 'TIME_CONFLICT' end,
            jsonb_build_object('booking_id', v_other.booking_id,
                'starts_at', tallybook.instant(v_other.starts_at), 'ends_at', tallybook.instant(v_other.ends_at)));
    end if;

    if not p_override then
        select count(*), array_agg(coalesce(e.hubspot_id, e.id::text) order by e.starts_at) filter (where not exists (
            select from tallybook.bookings b
            where b.contact_id = p_contact_id and b.mock_exam_id = e.id and b.status <> 'Cancelled'
                and (p_type.prerequisite_rule like '%\_booked' or b.attendance = 'Yes')))
        into v_needed, v_missing
        from tallybook.mock_exam_prerequisites p
        join tallybook.mock_exams e on e.id = p.prerequisite_id
        where p.mock_exam_id = p_exam.id;
        if v_needed > 0 and (case when p_type.prerequisite_rule like 'all\_%' then cardinality(v_missing) > 0
                                  else cardinality(v_missing) = v_needed end) then
            return tallybook.refuse('PREREQUISITE_NOT_MET', jsonb_build_object(
                'rule', p_type.prerequisite_rule, 'missing_mock_exam_ids', to_jsonb(v_missing)));
        end if;
    end if;
    return null;
end
$$;

create function tallybook.booking_label(
    p_contact_id uuid, p_mock_exam_id uuid, p_ordinal integer, p_mock_type text
)
returns text
language sql immutable
as $$
    select case when p_mock_type = 'Mock Discussion' then 'idem_disc_' else 'idem_' end
        || left(encode(sha256(convert_to(p_contact_id || ':' || p_mock_exam_id || ':' || p_ordinal, 'UTF8')), 'hex'), 32)
$$;

-- The first text and ordinal to try for a new booking: `Type-Student-Month D, YYYY`, and how many have it already.
-- The caller holds the contact's lock.
create function tallybook.next_booking_names(
    p_contact_id uuid, p_exam tallybook.mock_exams, out text_used text, out taken integer, out ordinal integer
)
language plpgsql stable
as $$
begin
    select p_exam.mock_type || '-' || coalesce(c.student_id, left(c.id::text, 8)) || '-'
        || to_char(p_exam.exam_on, 'FMMonth FMDD, YYYY')
    into text_used from tallybook.contacts c where c.id = p_contact_id;
    select count(*) into taken from tallybook.bookings b
    where b.booking_id = text_used collate "C"
        or (b.booking_id >= (text_used || ' (') collate "C" and b.booking_id < (text_used || ' )') collate "C");
    select coalesce(max(b.ordinal), 0) + 1 into ordinal from tallybook.bookings b
    where b.contact_id = p_contact_id and b.original_mock_exam_id = p_exam.id;
end
$$;

-- Inserts the booking under the first free text: as it is, then with ` (2)`, ` (3)` ...
create function tallybook.insert_booking(
    p_contact_id uuid, p_exam tallybook.mock_exams, p_text text, p_taken integer, p_ordinal integer,
    p_token text, p_actor text, p_attending_location text, p_dominant_hand boolean
)
returns tallybook.bookings
language plpgsql volatile
as $$
declare
    v_booking tallybook.bookings;
    v_taken integer := p_taken;
begin
    loop
        insert into tallybook.bookings (
            booking_id, contact_id, mock_exam_id, original_mock_exam_id, ordinal, mock_type, exam_on,
            starts_at, ends_at, token_used, attending_location, dominant_hand, idempotency_key, booked_by)
        values (
            p_text || case when v_taken = 0 then '' else ' (' || v_taken + 1 || ')' end,
            p_contact_id, p_exam.id, p_exam.id, p_ordinal, p_exam.mock_type, p_exam.exam_on,
            p_exam.starts_at, p_exam.ends_at, p_token, p_attending_location, p_dominant_hand,
            tallybook.booking_label(p_contact_id, p_exam.id, p_ordinal, p_exam.mock_type), p_actor)
        on conflict on constraint bookings_booking_id_key do nothing
        returning * into v_booking;
        exit when found;
        -- Another contact with the same student ID took this text a moment ago.
        v_taken := v_taken + 1;
    end loop;
    return v_booking;
end
$$;

-- Books a seat and spends a credit, or says why not. Nothing is written unless everything is. Each read follows the
-- lock that protects it; what only the contact's lock protects is read before the session's lock is taken, because
-- everybody who wants a seat waits for that one. If the session was edited in between, it is read again.
create function tallybook.book_seat(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text,
    p_mock_exam text, p_attending_location text, p_dominant_hand boolean,
    p_actor text, p_override_reason text,
    p_credential text, p_route text, p_key text, p_fingerprint bytea, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_contact_id uuid;
    v_exam_id uuid;
    v_refusal text;
    v_answer tallybook.answer;
    v_conflict tallybook.answer;
    v_credit tallybook.answer;
    v_seen tallybook.mock_exams;
    v_exam tallybook.mock_exams;
    v_type tallybook.mock_types;
    v_booking tallybook.bookings;
    v_names record;
    v_override boolean := p_override_reason is not null;
    v_pays text;
    v_token text := 'Admin Override';
    v_credits jsonb;
    v_data jsonb;
begin
    if btrim(p_override_reason) = '' then
        return tallybook.refuse('VALIDATION_ERROR', '{"field": "reason", "problem": "is missing"}');
    end if;
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
    v_exam_id := tallybook.find_mock_exam(p_mock_exam);
    if v_exam_id is null then
        return tallybook.refuse('EXAM_NOT_FOUND');
    end if;

    perform from tallybook.contacts c
    where c.id = v_contact_id and c.merged_into is null and c.archived_at is null for no key update;
    if not found then
        -- Merged or archived while this waited for the lock.
        return tallybook.refuse(case when p_contact_id is null then 'STUDENT_NOT_FOUND' else 'UNAUTHENTICATED' end);
    end if;
    perform tallybook.expire_overdue_holds(v_contact_id, pg_catalog.clock_timestamp());
    select * into v_exam from tallybook.mock_exams e where e.id = v_exam_id;
    loop
        v_seen := v_exam;
        select * into v_type from tallybook.mock_types t where t.name = v_exam.mock_type;
        v_conflict := tallybook.contact_refusal(v_contact_id, v_exam, v_type, v_override, null);
        if not v_override then
            v_credit := tallybook.choose_credit(v_contact_id, v_type.pays_with);
            v_pays := v_credit.data ->> 'credit_type';
            v_token := v_credit.data ->> 'token_name';
        end if;
        v_credits := tallybook.available_credits(v_contact_id);
        v_names := tallybook.next_booking_names(v_contact_id, v_exam);
        -- Waiters on one row convoy; queueing on an advisory lock first keeps a hot session at its full rate.
        perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(v_exam_id::text, 1));
        select * into v_exam from tallybook.mock_exams e where e.id = v_exam_id for no key update;
        exit when (v_exam.updated_at, v_exam.mock_type, v_exam.starts_at, v_exam.ends_at)
            = (v_seen.updated_at, v_seen.mock_type, v_seen.starts_at, v_seen.ends_at);
    end loop;

    if (p_key is null or p_dry_run) and v_conflict.refusal = 'DUPLICATE_BOOKING' then
        -- A double click, recognised by state; a dry run ignores keys.
        select * into v_booking from tallybook.bookings b
        where b.contact_id = v_contact_id and b.mock_exam_id = v_exam_id and b.status <> 'Cancelled' limit 1;
        if found then
            return tallybook.grant_answer('already', tallybook.booking_json(v_booking, v_exam)
                || jsonb_build_object('credits_after', v_credits, 'idempotent', true));
        end if;
    end if;
    v_answer := tallybook.session_refusal(v_exam, v_type, pg_catalog.clock_timestamp(), v_override);
    if v_answer.refusal is not null then
        return v_answer;
    elsif v_conflict.refusal is not null then
        return v_conflict;
    elsif v_credit.refusal is not null then
        return v_credit;
    elsif v_exam.total_bookings >= v_exam.capacity then
        return tallybook.refuse('EXAM_FULL', jsonb_build_object('capacity', v_exam.capacity));
    end if;
    if v_pays is not null then
        v_credits := v_credits || jsonb_build_object(v_pays, (v_credits -> v_pays)::integer - 1);
    end if;
    if p_dry_run then
        return tallybook.grant_answer('ok', (tallybook.booking_json(null, v_exam)
                - array['id', 'hubspot_id', 'booking_id', 'booking_record_id'])
            || jsonb_build_object('dry_run', true, 'mock_type', v_exam.mock_type, 'token_used', v_token,
                                  'credits_after', v_credits));
    end if;

    v_booking := tallybook.insert_booking(v_contact_id, v_exam, v_names.text_used, v_names.taken, v_names.ordinal,
        v_token, p_actor, p_attending_location, p_dominant_hand);
    if v_pays is not null then
        insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, booking_id)
        values (v_contact_id, v_pays, -1, 'booking', p_actor, v_booking.id);
    end if;
    v_data := tallybook.booking_json(v_booking, v_exam) || jsonb_build_object('credits_after', v_credits);
    perform tallybook.record('booking.created', 'booking', v_booking.id, v_contact_id, p_actor,
        jsonb_build_object('mock_exam_id', v_exam_id, 'token_used', v_token),
        case when v_override then jsonb_build_object('reason', p_override_reason) end);
    if p_key is not null then
        perform tallybook.end_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint, 'created', v_data);
    end if;
    perform tallybook.note_changes(
        array['booking', 'contact', 'mock_exam'], array[v_booking.id, v_contact_id, v_exam_id]);
    return tallybook.grant_answer('created', v_data);
end
$$;
