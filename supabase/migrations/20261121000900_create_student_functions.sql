-- What a student sees: credits, sessions, bookings, history. And signing in and out.

select tallybook.begin_migration('20261121000900', 'create_student_functions', '0.1.0');

-- Can this student book this type, and why not. BALANCE_UNKNOWN and CONTACT_UNKNOWN mean "ask HubSpot", never 0.
create function tallybook.check_credits(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text, p_mock_type text, p_source text
)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
    v_contact record;
    v_pays text[];
    v_retired boolean;
    v_credits integer[];
    v_known boolean;
    v_available integer;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    select t.pays_with, t.retired_at is not null into v_pays, v_retired
    from tallybook.mock_types t where t.name = p_mock_type;
    if v_pays is null then
        return tallybook.refuse('INVALID_MOCK_TYPE', jsonb_build_object('field', 'mock_type', 'allowed',
            (select jsonb_agg(t.name order by t.name) from tallybook.mock_types t where t.retired_at is null)));
    end if;
    select array_agg(coalesce(b.balance - b.held, 0) order by u.rank),
        bool_and(b.contact_id is not null or t.hubspot_property is null)
    into v_credits, v_known
    from unnest(v_pays) with ordinality as u (name, rank)
    join tallybook.credit_types t on t.name = u.name
    left join tallybook.credit_balances b on b.contact_id = v_contact_id and b.credit_type = u.name;
    select c.hubspot_id, c.student_id, c.email, c.firstname, c.lastname, c.ndecc_exam_on into v_contact
    from tallybook.contacts c where c.id = v_contact_id;
    if not v_known then
        return tallybook.refuse('BALANCE_UNKNOWN', jsonb_build_object('hubspot_id', v_contact.hubspot_id));
    end if;
    select sum(n) into v_available from unnest(v_credits) n;
    return tallybook.grant_answer('ok', jsonb_build_object(
        'eligible', v_available > 0 and not v_retired,
        'available_credits', v_available,
        'credit_breakdown', jsonb_build_object(
            'specific_credits', v_credits[1], 'shared_credits', v_available - v_credits[1]),
        'contact_id', coalesce(v_contact.hubspot_id, v_contact_id::text),
        'id', v_contact_id,
        'student_name', nullif(btrim(concat_ws(' ', v_contact.firstname, v_contact.lastname)), ''),
        'ndecc_exam_date', v_contact.ndecc_exam_on,
        'source', p_source,
        'as_of', tallybook.instant(pg_catalog.clock_timestamp())
    ) || case when v_available > 0 and not v_retired then '{}' else jsonb_build_object('error_message',
        case when v_retired then p_mock_type || ' can no longer be booked.'
             else 'You have no credits for ' || p_mock_type || '.' end) end);
end
$$;

create function tallybook.student_json(p_contact_id uuid)
returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'id', c.id, 'hubspot_id', c.hubspot_id, 'contact_id', coalesce(c.hubspot_id, c.id::text),
        'student_id', c.student_id, 'email', c.email,
        'name', nullif(btrim(concat_ws(' ', c.firstname, c.lastname)), ''),
        'firstname', c.firstname, 'lastname', c.lastname, 'ndecc_exam_date', c.ndecc_exam_on,
        'credits', tallybook.available_credits(c.id))
    from tallybook.contacts c where c.id = p_contact_id
$$;

create function tallybook.show_student(p_contact_id uuid, p_epoch integer, p_student_id text, p_email text)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    return tallybook.grant_answer('ok', tallybook.student_json(v_contact_id));
end
$$;

create function tallybook.set_ndecc_date(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text, p_on date, p_actor text, p_time_zone text
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_contact_id uuid;
    v_refusal text;
    v_before date;
    v_now timestamptz;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    select c.ndecc_exam_on into v_before from tallybook.contacts c where c.id = v_contact_id for no key update;
    v_now := pg_catalog.clock_timestamp();
    if p_on < (v_now at time zone p_time_zone)::date then
        return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object(
            'field', 'ndecc_exam_date', 'problem', 'is in the past'));
    end if;
    if v_before is distinct from p_on then
        update tallybook.contacts set ndecc_exam_on = p_on, updated_at = v_now where id = v_contact_id;
        perform tallybook.record('contact.ndecc_date_set', 'contact', v_contact_id, v_contact_id, p_actor, '{}',
            jsonb_build_object('before', v_before, 'after', p_on));
        perform tallybook.note_changes(array['contact'], array[v_contact_id]);
    end if;
    return (select tallybook.grant_answer('ok', jsonb_build_object(
        'contact_id', coalesce(c.hubspot_id, c.id::text), 'id', c.id, 'student_id', c.student_id, 'email', c.email,
        'ndecc_exam_date', c.ndecc_exam_on, 'updated_at', tallybook.instant(c.updated_at)))
        from tallybook.contacts c where c.id = v_contact_id);
end
$$;

-- Raising the epoch ends every session of the contact.
create function tallybook.end_sessions(p_contact_id uuid, p_epoch integer)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
begin
    update tallybook.contacts set session_epoch = session_epoch + 1
    where id = p_contact_id and session_epoch = coalesce(p_epoch, session_epoch);
    return case when found then tallybook.grant_answer('ok', '{}') else tallybook.refuse('UNAUTHENTICATED') end;
end
$$;

-- Open sessions of a type from now on, as students see them.
create function tallybook.list_mock_exams(p_mock_type text, p_include_full boolean)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_now timestamptz := pg_catalog.clock_timestamp();
begin
    if not exists (select from tallybook.mock_types t where t.name = p_mock_type) then
        return tallybook.refuse('INVALID_MOCK_TYPE', jsonb_build_object('field', 'mock_type', 'allowed',
            (select jsonb_agg(t.name order by t.name) from tallybook.mock_types t where t.retired_at is null)));
    end if;
    return tallybook.grant_answer('ok', coalesce((
        select jsonb_agg(jsonb_build_object(
            'mock_exam_id', coalesce(e.hubspot_id, e.id::text), 'id', e.id,
            'mock_type', e.mock_type, 'mock_set', e.mock_set,
            'exam_date', e.exam_on, 'start_time', to_char(e.start_time, 'HH24:MI'),
            'end_time', to_char(e.end_time, 'HH24:MI'), 'time_zone', e.time_zone,
            'starts_at', tallybook.instant(e.starts_at), 'ends_at', tallybook.instant(e.ends_at),
            'location', e.location, 'address', e.address,
            'capacity', e.capacity, 'total_bookings', e.total_bookings,
            'available_slots', e.capacity - e.total_bookings, 'is_active', true,
            'status', case when e.total_bookings >= e.capacity then 'full'
                           when e.capacity - e.total_bookings <= 3 then 'limited' else 'available' end,
            'prerequisite_exam_ids', coalesce((
                select jsonb_agg(coalesce(q.hubspot_id, q.id::text) order by q.starts_at)
                from tallybook.mock_exam_prerequisites p
                join tallybook.mock_exams q on q.id = p.prerequisite_id
                where p.mock_exam_id = e.id), '[]')
        ) order by e.starts_at, e.id)
        from tallybook.mock_exams e
        join tallybook.mock_types t on t.name = e.mock_type and t.retired_at is null
        where e.mock_type = p_mock_type and e.archived_at is null
            and e.starts_at - make_interval(mins => t.booking_closes_min) > v_now
            and (e.activation = 'active' or (e.activation = 'scheduled' and e.opens_at <= v_now))
            and (p_include_full or e.total_bookings < e.capacity)
    ), '[]'));
end
$$;

create function tallybook.show_capacity(p_mock_exam text)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_data jsonb;
begin
    select jsonb_build_object(
        'mock_exam_id', coalesce(e.hubspot_id, e.id::text), 'id', e.id,
        'capacity', e.capacity, 'total_bookings', e.total_bookings,
        'available_slots', e.capacity - e.total_bookings, 'is_full', e.total_bookings >= e.capacity,
        'last_checked', tallybook.instant(pg_catalog.clock_timestamp()))
    into v_data
    from tallybook.mock_exams e
    where e.id = tallybook.find_mock_exam(p_mock_exam) and e.archived_at is null;
    return case when v_data is null then tallybook.refuse('EXAM_NOT_FOUND')
                else tallybook.grant_answer('ok', v_data) end;
end
$$;

create function tallybook.booking_detail(p_booking tallybook.bookings, p_exam tallybook.mock_exams)
returns jsonb
language sql stable
as $$
    select tallybook.booking_json(p_booking, p_exam) || jsonb_build_object(
        'status', p_booking.status, 'is_active', p_booking.status, 'mock_set', p_exam.mock_set,
        'address', p_exam.address, 'attendance', coalesce(p_booking.attendance, ''),
        'attending_location', p_booking.attending_location, 'dominant_hand', p_booking.dominant_hand,
        'created_at', tallybook.instant(p_booking.created_at),
        'cancelled_at', tallybook.instant(p_booking.cancelled_at))
$$;

create function tallybook.show_booking(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text, p_booking text
)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
    v_data jsonb;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    select tallybook.booking_detail(b, e) into v_data
    from tallybook.bookings b
    join tallybook.mock_exams e on e.id = b.mock_exam_id
    where b.id = tallybook.own_booking(v_contact_id, p_booking);
    return case when v_data is null then tallybook.refuse('BOOKING_NOT_FOUND')
                else tallybook.grant_answer('ok', v_data) end;
end
$$;

-- A page of the caller's bookings. Upcoming: live and not over, soonest first. Past and all: latest first.
create function tallybook.list_bookings(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text,
    p_filter text, p_page integer, p_limit integer
)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
    v_now timestamptz := pg_catalog.clock_timestamp();
    v_total integer;
    v_rows jsonb;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    select count(*) into v_total from tallybook.bookings b
    where b.contact_id = v_contact_id and (p_filter = 'all'
        or (p_filter = 'upcoming') = (b.status <> 'Cancelled' and b.ends_at > v_now));
    select coalesce(jsonb_agg(tallybook.booking_detail(p.b, e) order by p.rank), '[]') into v_rows
    from (
        select b, row_number() over (order by
            case when p_filter = 'upcoming' then b.starts_at end, b.starts_at desc, b.id) as rank
        from tallybook.bookings b
        where b.contact_id = v_contact_id and (p_filter = 'all'
            or (p_filter = 'upcoming') = (b.status <> 'Cancelled' and b.ends_at > v_now))
        order by rank
        limit p_limit offset (p_page - 1)::bigint * p_limit
    ) p
    join tallybook.mock_exams e on e.id = (p.b).mock_exam_id;
    return tallybook.grant_answer('ok', jsonb_build_object(
        'bookings', v_rows,
        'pagination', jsonb_build_object(
            'current_page', p_page, 'total_pages', ceil(v_total::numeric / p_limit)::integer,
            'total_bookings', v_total, 'has_next', p_page::bigint * p_limit < v_total, 'has_previous', p_page > 1),
        'credits', tallybook.available_credits(v_contact_id)));
end
$$;

-- The credits of one contact: what is there, what is set aside, what can be spent.
create function tallybook.show_credits(p_contact_id uuid, p_epoch integer, p_student_id text, p_email text)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
    v_unknown boolean;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    select bool_or(b.contact_id is null) into v_unknown
    from tallybook.credit_types t
    left join tallybook.credit_balances b on b.contact_id = v_contact_id and b.credit_type = t.name
    where t.hubspot_property is not null and t.retired_at is null;
    if v_unknown then
        return tallybook.refuse('BALANCE_UNKNOWN', (
            select jsonb_build_object('hubspot_id', c.hubspot_id) from tallybook.contacts c where c.id = v_contact_id));
    end if;
    return tallybook.grant_answer('ok', jsonb_build_object(
        'user_id', v_contact_id, 'id', v_contact_id,
        'credits', (tallybook.available_credits(v_contact_id) -> 'credits'),
        'balances', tallybook.available_credits(v_contact_id),
        'held', (select coalesce(jsonb_object_agg(b.credit_type, b.held) filter (where b.held > 0), '{}')
                 from tallybook.credit_balances b where b.contact_id = v_contact_id),
        'source', 'database', 'as_of', tallybook.instant(pg_catalog.clock_timestamp())));
end
$$;

-- The ledger as the person it is about sees it, newest first; there is no second store of usage.
create function tallybook.usage_history(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text,
    p_page integer, p_per_page integer, p_reason text
)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
    v_total integer;
    v_rows jsonb;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    select count(*) into v_total from tallybook.credit_entries e
    where e.contact_id = v_contact_id and (p_reason is null or e.reason = p_reason);
    select coalesce(jsonb_agg(jsonb_build_object(
        'id', p.id, 'action', p.reason, 'credit_type', p.credit_type, 'delta', p.delta,
        'credits_used', greatest(-p.delta, 0), 'balance_after', p.balance_after,
        'booking_id', b.booking_id, 'created_at', tallybook.instant(p.created_at)) order by p.id desc), '[]')
    into v_rows
    from (
        select * from tallybook.credit_entries e
        where e.contact_id = v_contact_id and (p_reason is null or e.reason = p_reason)
        order by e.id desc limit p_per_page offset (p_page - 1)::bigint * p_per_page
    ) p
    left join tallybook.bookings b on b.id = p.booking_id;
    return tallybook.grant_answer('ok', jsonb_build_object('data', v_rows, 'pagination', jsonb_build_object(
        'page', p_page, 'per_page', p_per_page, 'total', v_total,
        'pages', ceil(v_total::numeric / p_per_page)::integer)));
end
$$;

-- A session: what a token is made of, and who it is for.
create function tallybook.session_json(p_contact_id uuid)
returns jsonb
language sql stable
as $$
    select jsonb_build_object('contact_id', c.id, 'epoch', c.session_epoch, 'hubspot_id', c.hubspot_id,
        'profile', tallybook.student_json(c.id))
    from tallybook.contacts c where c.id = p_contact_id
$$;

-- Ten failures a minute from one address, then it has to wait; a student is never locked out for everybody.
create function tallybook.may_sign_in(p_address text)
returns boolean
language sql volatile
set search_path = ''
as $$
    select tallybook.calls_in_window('login-failure:' || p_address) < 10
        and tallybook.allow_call('address:' || p_address, 600)
$$;

create function tallybook.count_login_failure(p_address text)
returns void
language sql volatile
set search_path = ''
as $$ select tallybook.allow_call('login-failure:' || p_address, 1000) $$;

create function tallybook.sign_in(p_student_id text, p_email text, p_address text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
begin
    if not tallybook.may_sign_in(p_address) then
        return tallybook.refuse('RATE_LIMITED');
    end if;
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(null, null, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    return tallybook.grant_answer('ok', tallybook.session_json(v_contact_id));
end
$$;

create function tallybook.begin_challenge(p_address text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
as $$
declare
    v_id uuid;
begin
    if not tallybook.may_sign_in(p_address) then
        return tallybook.refuse('RATE_LIMITED');
    end if;
    delete from tallybook.login_challenges where expires_at < pg_catalog.clock_timestamp() - interval '1 day';
    insert into tallybook.login_challenges (expires_at)
    values (pg_catalog.clock_timestamp() + interval '10 minutes')
    returning id into v_id;
    return tallybook.grant_answer('ok', jsonb_build_object('challenge', v_id));
end
$$;

create function tallybook.prepare_code(p_challenge text, p_student_id text, p_email text, p_code_hash bytea)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(null, null, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    update tallybook.login_challenges set contact_id = v_contact_id, code_hash = p_code_hash
    where id = tallybook.uuid_or_null(p_challenge) and code_hash is null;
    return (select tallybook.grant_answer('ok', jsonb_build_object('email', c.email))
            from tallybook.contacts c where c.id = v_contact_id);
end
$$;

-- Whatever is wrong with a code, the answer is the same, and it counts against the address.
create function tallybook.redeem_code(p_challenge text, p_code_hash bytea, p_address text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_challenge tallybook.login_challenges;
begin
    if not tallybook.may_sign_in(p_address) then
        return tallybook.refuse('RATE_LIMITED');
    end if;
    select * into v_challenge from tallybook.login_challenges l
    where l.id = tallybook.uuid_or_null(p_challenge) for update;
    if v_challenge.code_hash is null or v_challenge.used_at is not null or v_challenge.tries >= 5
            or v_challenge.expires_at <= pg_catalog.clock_timestamp()
            or v_challenge.code_hash <> p_code_hash then
        update tallybook.login_challenges set tries = tries + 1 where id = v_challenge.id;
        perform tallybook.count_login_failure(p_address);
        return tallybook.refuse('LOGIN_FAILED');
    end if;
    update tallybook.login_challenges set used_at = pg_catalog.clock_timestamp() where id = v_challenge.id;
    return tallybook.grant_answer('ok', tallybook.session_json(v_challenge.contact_id));
end
$$;

-- Removes what nobody asks for any more, a thousand rows at most; gives how many. Safe to run at any time.
create function tallybook.sweep()
returns integer
language sql volatile
set search_path = ''
as $$
    with keys as (
        delete from tallybook.idempotency_keys k
        where (k.credential, k.contact_id, k.route, k.key) in (
            select o.credential, o.contact_id, o.route, o.key from tallybook.idempotency_keys o
            where o.created_at < pg_catalog.clock_timestamp() - interval '25 hours'
            order by o.created_at limit 1000 for update skip locked)
        returning 1
    ), challenges as (
        delete from tallybook.login_challenges l
        where l.id in (select o.id from tallybook.login_challenges o
                       where o.expires_at < pg_catalog.clock_timestamp() - interval '1 day'
                       limit 1000 for update skip locked)
        returning 1
    )
    select (select count(*) from keys)::integer + (select count(*) from challenges)::integer
$$;
