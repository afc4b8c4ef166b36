-- The shared beats of every deciding function: who asks, is it a repeat, what does it look like, who must be told.
-- A refusal is a value, not an exception: it is reached before anything is written, so nothing has to be undone.

select tallybook.begin_migration('20261121000600', 'create_booking_functions', '0.1.0');

create type tallybook.answer as (
    refusal text,       -- one of our codes; NULL: granted
    details jsonb,      -- what helps to act on a refusal
    outcome text,       -- 'created', 'already', 'ok'
    data jsonb,
    replayed boolean
);

create function tallybook.refuse(p_code text, p_details jsonb default '{}')
returns tallybook.answer
language sql immutable
as $$ select row(p_code, p_details, null, null, false)::tallybook.answer $$;

create function tallybook.grant_answer(p_outcome text, p_data jsonb)
returns tallybook.answer
language sql immutable
as $$ select row(null, null, p_outcome, p_data, false)::tallybook.answer $$;

-- Counts a call in a sliding minute: the last window counts as far as it still overlaps. Refused calls are not
-- counted, so somebody who keeps hammering gets back in a minute after slowing down. Calls under way on other
-- connections are not seen yet: at most so many pass beyond the limit.
create function tallybook.allow_call(p_key text, p_limit integer)
returns boolean
language plpgsql volatile
set search_path = ''
as $$
declare
    v_now timestamptz := pg_catalog.clock_timestamp();
    v_window timestamptz := pg_catalog.date_trunc('minute', v_now);
    v_calls numeric;
begin
    select sum(case when e.window_start = v_window then e.calls
                    else e.calls * (1 - extract(epoch from v_now - v_window) / 60) end) into v_calls
    from tallybook.rate_events e
    where e.key = p_key and e.window_start >= v_window - interval '1 minute';
    if coalesce(v_calls, 0) >= p_limit then
        return false;
    end if;
    if pg_catalog.random() < 0.002 then
        delete from tallybook.rate_events where window_start < v_now - interval '10 minutes';
    end if;
    insert into tallybook.rate_events as e (key, window_start, backend, calls)
    values (p_key, v_window, pg_catalog.pg_backend_pid(), 1)
    on conflict (key, window_start, backend) do update set calls = e.calls + 1;
    return true;
end
$$;

create function tallybook.calls_in_window(p_key text)
returns numeric
language sql stable
set search_path = ''
as $$
    select coalesce(sum(case when e.window_start = pg_catalog.date_trunc('minute', now.at) then e.calls
                             else e.calls * (1 - extract(epoch from now.at - pg_catalog.date_trunc('minute', now.at)) / 60)
                        end), 0)
    from (select pg_catalog.clock_timestamp() as at) now
    join tallybook.rate_events e
        on e.key = p_key and e.window_start >= pg_catalog.date_trunc('minute', now.at) - interval '1 minute'
$$;

-- Who is asking. By id (a token: the epoch must fit, and a pair beside it must be this contact's) or by the pair.
-- CONTACT_UNKNOWN is no answer for a client: it means "not stored; ask HubSpot".
create function tallybook.identify(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text,
    out contact_id uuid, out refusal text
)
language plpgsql stable
as $$
declare
    v_contact record;
begin
    if p_contact_id is not null then
        select c.id, c.student_id, c.email, c.session_epoch, c.archived_at, c.merged_into into v_contact
        from tallybook.contacts c where c.id = p_contact_id;
        if not found or v_contact.merged_into is not null or v_contact.archived_at is not null
                or v_contact.session_epoch <> coalesce(p_epoch, v_contact.session_epoch) then
            refusal := 'UNAUTHENTICATED';
        elsif v_contact.student_id is distinct from coalesce(p_student_id, v_contact.student_id)
                or v_contact.email is distinct from coalesce(p_email, v_contact.email) then
            refusal := 'FORBIDDEN';
        else
            contact_id := v_contact.id;
        end if;
        return;
    end if;
    select c.id, c.archived_at into v_contact
    from tallybook.contacts c
    where c.email = p_email and c.student_id = p_student_id and c.merged_into is null;
    if not found then
        -- An old student ID, or an address of a merged contact, still opens the door.
        select c.id, c.archived_at into v_contact
        from tallybook.contacts c
        where c.merged_into is null
            and (c.email = p_email or exists (select from tallybook.contact_aliases a
                 where a.kind = 'email' and a.value = p_email and a.contact_id = c.id))
            and (c.student_id = p_student_id or exists (select from tallybook.contact_aliases a
                 where a.kind = 'student_id' and a.value = p_student_id and a.contact_id = c.id))
            and exists (select from tallybook.contact_aliases a where a.kind in ('email', 'student_id')
                        and a.value in (p_email, p_student_id) and a.contact_id = c.id);
    end if;
    if not found then
        refusal := 'CONTACT_UNKNOWN';
    elsif v_contact.archived_at is not null then
        refusal := 'STUDENT_NOT_FOUND';
    else
        contact_id := v_contact.id;
    end if;
end
$$;

-- A UUID from text that may be anything: NULL when it is none. (`text::uuid` would raise.)
create function tallybook.uuid_or_null(p_text text)
returns uuid
language sql immutable
as $$
    select case when p_text ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then p_text::uuid end
$$;

create function tallybook.find_mock_exam(p_ref text)
returns uuid
language sql stable
as $$
    select e.id from tallybook.mock_exams e
    where e.id = tallybook.uuid_or_null(p_ref) or e.hubspot_id = p_ref
$$;

create function tallybook.find_booking(p_ref text)
returns uuid
language sql stable
as $$
    select b.id from (
        select 1 as rank, b.id from tallybook.bookings b where b.hubspot_id = p_ref
        union all
        select 2, b.id from tallybook.bookings b where b.id = tallybook.uuid_or_null(p_ref)
        union all
        select 3, b.id from tallybook.bookings b where b.booking_id = p_ref collate "C"
    ) b order by b.rank limit 1
$$;

-- The lock of an idempotency key, then its stored answer. An advisory lock, because a refusal must leave no row.
create function tallybook.begin_request(
    p_credential text, p_contact_id uuid, p_route text, p_key text, p_fingerprint bytea
)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_stored record;
begin
    begin
        perform pg_catalog.pg_advisory_xact_lock(
            pg_catalog.hashtextextended(pg_catalog.concat_ws(chr(31), p_credential, p_contact_id, p_route, p_key), 7));
    exception when lock_not_available then
        return tallybook.refuse('IDEMPOTENCY_IN_PROGRESS');
    end;
    select k.fingerprint, k.outcome, k.data into v_stored
    from tallybook.idempotency_keys k
    where k.credential = p_credential and k.contact_id = p_contact_id and k.route = p_route and k.key = p_key
        and k.created_at > pg_catalog.clock_timestamp() - interval '24 hours';
    if not found then
        return null;
    elsif v_stored.fingerprint <> p_fingerprint then
        return tallybook.refuse('IDEMPOTENCY_KEY_REUSED');
    end if;
    return row(null, null, v_stored.outcome, v_stored.data, true)::tallybook.answer;
end
$$;

create function tallybook.end_request(
    p_credential text, p_contact_id uuid, p_route text, p_key text, p_fingerprint bytea,
    p_outcome text, p_data jsonb
)
returns void
language sql volatile
as $$
    insert into tallybook.idempotency_keys (credential, contact_id, route, key, fingerprint, outcome, data)
    values (p_credential, p_contact_id, p_route, p_key, p_fingerprint, p_outcome, p_data)
    on conflict on constraint idempotency_keys_pkey do update
        set fingerprint = excluded.fingerprint, outcome = excluded.outcome, data = excluded.data,
            created_at = excluded.created_at
$$;

-- Puts changed objects into the outbox, always as the last locks of a transaction and in (type, id) order.
create function tallybook.note_changes(p_types text[], p_ids uuid[])
returns void
language sql volatile
as $$
    insert into tallybook.outbox as o (object_type, object_id)
    select u.object_type, u.object_id
    from (select distinct t as object_type, i as object_id from unnest(p_types, p_ids) as x (t, i)) u
    order by 1, 2
    on conflict on constraint outbox_pkey do update
        set version = o.version + 1,
            dead_at = null,
            attempts = case when o.dead_at is null then o.attempts else 0 end,
            next_attempt_at = least(o.next_attempt_at, excluded.next_attempt_at)
$$;

-- The balances of a contact as {type: credits that can be spent}.
create function tallybook.available_credits(p_contact_id uuid)
returns jsonb
language sql stable
as $$
    select coalesce(jsonb_object_agg(t.name, coalesce(b.balance - b.held, 0)), '{}')
    from tallybook.credit_types t
    left join tallybook.credit_balances b on b.credit_type = t.name and b.contact_id = p_contact_id
    where b.contact_id is not null or t.hubspot_property is null
$$;

-- An instant as ISO 8601 in UTC, whatever the session's time zone.
create function tallybook.instant(p_at timestamptz)
returns text
language sql immutable
as $$ select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') $$;

create function tallybook.booking_json(p_booking tallybook.bookings, p_exam tallybook.mock_exams)
returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'id', p_booking.id,
        'booking_id', p_booking.booking_id,
        'booking_record_id', p_booking.booking_id,
        'hubspot_id', p_booking.hubspot_id,
        'mock_exam_id', coalesce(p_exam.hubspot_id, p_exam.id::text),
        'mock_type', p_booking.mock_type,
        'exam_date', p_exam.exam_on,
        'start_time', to_char(p_exam.start_time, 'HH24:MI'),
        'end_time', to_char(p_exam.end_time, 'HH24:MI'),
        'time_zone', p_exam.time_zone,
        'starts_at', tallybook.instant(p_exam.starts_at),
        'ends_at', tallybook.instant(p_exam.ends_at),
        'location', p_exam.location,
        'token_used', p_booking.token_used
    )
$$;

-- One line of the audit log; what may name a person goes beside it, where it can be erased.
create function tallybook.record(
    p_action text, p_object_type text, p_object_id uuid, p_contact_id uuid, p_actor text,
    p_changes jsonb, p_personal jsonb
)
returns void
language plpgsql volatile
as $$
declare
    v_id bigint;
begin
    insert into tallybook.audit_log (actor, action, object_type, object_id, contact_id, changes)
    values (p_actor, p_action, p_object_type, p_object_id::text, p_contact_id, p_changes)
    returning id into v_id;
    if p_personal is not null then
        insert into tallybook.audit_details (audit_id, contact_id, details) values (v_id, p_contact_id, p_personal);
    end if;
end
$$;

-- Gives back what overdue holds set aside. The caller holds the contact's lock; every deciding function starts so.
create function tallybook.expire_overdue_holds(p_contact_id uuid, p_now timestamptz)
returns void
language plpgsql volatile
as $$
begin
    if exists (select from tallybook.credit_balances b where b.contact_id = p_contact_id and b.held > 0) then
        with expired as (
            update tallybook.credit_holds h set closed_at = p_now, closed_as = 'expired', captured_credits = 0
            where h.contact_id = p_contact_id and h.closed_at is null and h.expires_at <= p_now
            returning h.credit_type, h.credits
        )
        update tallybook.credit_balances b set held = b.held - x.credits
        from (select e.credit_type, sum(e.credits)::integer as credits from expired e group by 1) x
        where b.contact_id = p_contact_id and b.credit_type = x.credit_type;
    end if;
end
$$;

-- What a student who cannot pay needs to know.
create function tallybook.credits_refusal(p_contact_id uuid, p_pays_with text[])
returns tallybook.answer
language sql stable
as $$
    select tallybook.refuse('INSUFFICIENT_CREDITS', jsonb_build_object(
        'needed', 1,
        'credits', (
            select jsonb_agg(jsonb_build_object('credit_type', t.name, 'token_name', t.token_name,
                'available', coalesce(b.balance - b.held, 0), 'held', coalesce(b.held, 0)) order by u.rank)
            from unnest(p_pays_with) with ordinality as u (name, rank)
            join tallybook.credit_types t on t.name = u.name
            left join tallybook.credit_balances b on b.contact_id = p_contact_id and b.credit_type = t.name),
        'what_helps', '1 more of: ' || (
            select string_agg(t.token_name, ', ' order by u.rank)
            from unnest(p_pays_with) with ordinality as u (name, rank)
            join tallybook.credit_types t on t.name = u.name)))
$$;

-- The first credit type, in the catalog's order, that has one to spend: {credit_type, token_name}. BALANCE_UNKNOWN is
-- no answer for a client: a mirrored balance is missing, so HubSpot has to be asked before anybody says 0.
create function tallybook.choose_credit(p_contact_id uuid, p_pays_with text[])
returns tallybook.answer
language plpgsql stable
as $$
declare
    v_choice record;
begin
    select t.name, t.token_name, b.contact_id is null and t.hubspot_property is not null as unknown into v_choice
    from unnest(p_pays_with) with ordinality as u (name, rank)
    join tallybook.credit_types t on t.name = u.name
    left join tallybook.credit_balances b on b.contact_id = p_contact_id and b.credit_type = t.name
    where b.balance - b.held >= 1 or (b.contact_id is null and t.hubspot_property is not null)
    order by u.rank
    limit 1;
    if not found then
        return tallybook.credits_refusal(p_contact_id, p_pays_with);
    elsif v_choice.unknown then
        return tallybook.refuse('BALANCE_UNKNOWN', (
            select jsonb_build_object('hubspot_id', c.hubspot_id) from tallybook.contacts c where c.id = p_contact_id));
    end if;
    return tallybook.grant_answer('ok',
        jsonb_build_object('credit_type', v_choice.name, 'token_name', v_choice.token_name));
end
$$;
