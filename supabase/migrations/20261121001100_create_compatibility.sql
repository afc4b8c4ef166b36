-- Names that existing Supabase clients and monitoring queries use, for service_role only. All rules apply.

select tallybook.begin_migration('20261121001100', 'create_compatibility', '0.1.0');

create view tallybook.hubspot_contact_credits as
select c.id, c.hubspot_id, c.student_id, c.email, c.firstname, c.lastname,
    b.sj_credits, b.cs_credits, b.sjmini_credits, b.mock_discussion_token, b.shared_mock_credits,
    c.ndecc_exam_on::text as ndecc_exam_date,
    c.created_at, c.updated_at, c.synced_at
from tallybook.contacts c
-- No row means unknown; NULL says so, where 0 would be a lie.
left join lateral (
    select max(b.balance - b.held) filter (where b.credit_type = 'sj_credits') as sj_credits,
        max(b.balance - b.held) filter (where b.credit_type = 'cs_credits') as cs_credits,
        max(b.balance - b.held) filter (where b.credit_type = 'sjmini_credits') as sjmini_credits,
        max(b.balance - b.held) filter (where b.credit_type = 'mock_discussion_token') as mock_discussion_token,
        max(b.balance - b.held) filter (where b.credit_type = 'shared_mock_credits') as shared_mock_credits
    from tallybook.credit_balances b where b.contact_id = c.id
) b on true
where c.merged_into is null and c.student_id is not null and c.email is not null;

create view tallybook.hubspot_mock_exams as
select e.id, e.hubspot_id, e.mock_type || '-' || e.location || '-' || e.exam_on as mock_exam_name,
    e.mock_type, e.mock_set, e.exam_on as exam_date,
    to_char(e.start_time, 'HH24:MI') as start_time, to_char(e.end_time, 'HH24:MI') as end_time,
    e.location, e.address, e.capacity, e.total_bookings,
    case when e.activation = 'active' or (e.activation = 'scheduled' and e.opens_at <= now()) then 'true'
         when e.activation = 'scheduled' then 'scheduled' else 'false' end as is_active,
    e.opens_at as scheduled_activation_datetime,
    array(select coalesce(q.hubspot_id, q.id::text)
          from tallybook.mock_exam_prerequisites p join tallybook.mock_exams q on q.id = p.prerequisite_id
          where p.mock_exam_id = e.id order by q.starts_at) as prerequisite_exam_ids,
    e.created_at, e.updated_at, e.synced_at
from tallybook.mock_exams e
where e.archived_at is null;

create view tallybook.hubspot_bookings as
select b.id, b.hubspot_id, b.booking_id::text as booking_id,
    coalesce(e.hubspot_id, e.id::text) as associated_mock_exam,
    coalesce(c.hubspot_id, c.id::text) as associated_contact_id,
    c.student_id, nullif(btrim(concat_ws(' ', c.firstname, c.lastname)), '') as name, c.email as student_email,
    b.status as booking_status, b.status as is_active, coalesce(b.attendance, '') as attendance,
    b.attending_location, b.exam_on as exam_date, b.dominant_hand::text as dominant_hand, b.token_used,
    case when b.refunded then 'true' end as token_refunded,
    case when b.refunded then b.cancelled_at end as token_refunded_at,
    case when b.refunded then b.cancelled_by end as token_refund_admin,
    to_char(e.start_time, 'HH24:MI') as start_time, to_char(e.end_time, 'HH24:MI') as end_time,
    c.ndecc_exam_on as ndecc_exam_date, b.idempotency_key, b.mock_type, e.mock_set,
    b.created_at, b.updated_at, b.synced_at, b.synced_at as hubspot_last_sync_at
from tallybook.bookings b
join tallybook.mock_exams e on e.id = b.mock_exam_id
join tallybook.contacts c on c.id = b.contact_id;

create function tallybook.refuse_view_write()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    raise exception 'read-only: use tallybook contact refresh or grant'
        using errcode = 'P0001', detail = 'tallybook.' || tg_table_name || ' is a view for reading.';
end
$$;

-- Once per statement, so that a write that meets no row is refused too; PostgreSQL wants the others beside it.
create trigger hubspot_contact_credits_is_for_reading before insert or update or delete
    on tallybook.hubspot_contact_credits for each statement execute function tallybook.refuse_view_write();
create trigger hubspot_mock_exams_is_for_reading before insert or update or delete
    on tallybook.hubspot_mock_exams for each statement execute function tallybook.refuse_view_write();
create trigger hubspot_bookings_is_for_reading before insert or update or delete
    on tallybook.hubspot_bookings for each statement execute function tallybook.refuse_view_write();
create trigger hubspot_contact_credits_is_read_only instead of insert or update or delete
    on tallybook.hubspot_contact_credits for each row execute function tallybook.refuse_view_write();
create trigger hubspot_mock_exams_is_read_only instead of insert or update or delete
    on tallybook.hubspot_mock_exams for each row execute function tallybook.refuse_view_write();
create trigger hubspot_bookings_is_read_only instead of insert or update or delete
    on tallybook.hubspot_bookings for each row execute function tallybook.refuse_view_write();

-- A refusal as old clients expect errors: SQLSTATE P0001, our code as the message, JSON in DETAIL.
create function tallybook.raise_refusal(p_answer tallybook.answer)
returns void
language plpgsql
as $$
begin
    if p_answer.refusal is not null then
        -- Nobody behind these names can ask HubSpot: a balance it has not told yet may be there later.
        raise exception '%', case p_answer.refusal when 'CONTACT_UNKNOWN' then 'CONTACT_NOT_FOUND'
                                                   when 'BALANCE_UNKNOWN' then 'CRM_BUSY'
                                                   else p_answer.refusal end
            using errcode = 'P0001', detail = coalesce(p_answer.details, '{}')::text;
    end if;
end
$$;

create function tallybook.get_contact_credits(
    p_student_id text default null, p_email text default null, p_id uuid default null, p_hubspot_id text default null
)
returns tallybook.hubspot_contact_credits
language plpgsql stable security definer
set search_path = ''
as $$
declare
    v_row tallybook.hubspot_contact_credits;
begin
    select * into v_row from tallybook.hubspot_contact_credits v
    where case when p_id is not null then v.id = p_id
               when p_hubspot_id is not null then v.hubspot_id = p_hubspot_id
               else v.student_id = upper(btrim(p_student_id)) and v.email = lower(btrim(p_email)) end;
    if not found then
        perform tallybook.raise_refusal(tallybook.refuse('CONTACT_NOT_FOUND'));
    end if;
    return v_row;
end
$$;

create function tallybook.get_booking(
    p_id uuid default null, p_hubspot_id text default null, p_booking_id text default null
)
returns tallybook.hubspot_bookings
language plpgsql stable security definer
set search_path = ''
as $$
declare
    v_row tallybook.hubspot_bookings;
begin
    select * into v_row from tallybook.hubspot_bookings v
    where case when p_id is not null then v.id = p_id
               when p_hubspot_id is not null then v.hubspot_id = p_hubspot_id
               else v.id = (select b.id from tallybook.bookings b where b.booking_id = p_booking_id collate "C") end;
    if not found then
        perform tallybook.raise_refusal(tallybook.refuse('BOOKING_NOT_FOUND'));
    end if;
    return v_row;
end
$$;

create function tallybook.check_idempotency_key(p_idempotency_key text)
returns jsonb
language sql stable security definer
set search_path = ''
as $$
    select jsonb_build_object('found', true, 'booking_id', v.booking_id, 'id', v.id, 'hubspot_id', v.hubspot_id,
        'is_active', v.is_active, 'student_id', v.student_id, 'mock_exam_id', v.associated_mock_exam,
        'created_at', v.created_at)
    from tallybook.hubspot_bookings v
    where v.idempotency_key = p_idempotency_key
        or v.id in (select (k.data ->> 'id')::uuid from tallybook.idempotency_keys k
                    where k.credential = 'service_role' and k.route = 'create_booking_atomic'
                        and k.key = p_idempotency_key)
    limit 1
$$;

-- Old name, new rules: the booking id, the credit field and the balance that the caller computed are accepted and
-- never used. The named token must be able to pay for the type; which one pays is decided here.
create function tallybook.create_booking_atomic(
    p_booking_id text default null, p_student_id text default null, p_student_email text default null,
    p_mock_exam_id text default null, p_student_name text default null, p_token_used text default null,
    p_attending_location text default null, p_dominant_hand text default null,
    p_idempotency_key text default null, p_credit_field text default null, p_new_credit_value integer default null,
    p_mock_set text default null
)
returns jsonb
language plpgsql volatile security definer
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_answer tallybook.answer;
    v_student text := upper(btrim(p_student_id));
    v_email text := lower(btrim(p_student_email));
begin
    if p_token_used is not null and not exists (
        select from tallybook.mock_exams e
        join tallybook.mock_types t on t.name = e.mock_type
        join tallybook.credit_types c on c.name = any (t.pays_with) and c.token_name = p_token_used
        where e.id = tallybook.find_mock_exam(p_mock_exam_id)
    ) and tallybook.find_mock_exam(p_mock_exam_id) is not null then
        perform tallybook.raise_refusal(tallybook.refuse('VALIDATION_ERROR', jsonb_build_object(
            'field', 'p_token_used', 'problem', 'cannot pay for this mock type')));
    end if;
    -- Old clients make the same key for five minutes. Once its booking is cancelled it must not say "booked" again.
    delete from tallybook.idempotency_keys k using tallybook.bookings b
    where k.credential = 'service_role' and k.route = 'create_booking_atomic' and k.key = p_idempotency_key
        and b.id = tallybook.uuid_or_null(k.data ->> 'id') and b.status = 'Cancelled';
    v_answer := tallybook.book_seat(null, null, v_student, v_email, p_mock_exam_id, p_attending_location,
        case lower(btrim(p_dominant_hand)) when 'true' then true when 'right' then true
                                           when 'false' then false when 'left' then false end,
        'service_role', null, 'service_role', 'create_booking_atomic', p_idempotency_key,
        sha256(convert_to(coalesce(p_mock_exam_id, ''), 'UTF8')), false);
    perform tallybook.raise_refusal(v_answer);
    return (
        select jsonb_build_object('success', true, 'booking_id', b.id, 'booking_code', b.booking_id,
            'contact_hubspot_id', c.hubspot_id, 'mock_exam_hubspot_id', e.hubspot_id)
        from tallybook.bookings b
        join tallybook.contacts c on c.id = b.contact_id
        join tallybook.mock_exams e on e.id = b.mock_exam_id
        where b.id = (v_answer.data ->> 'id')::uuid);
exception when unique_violation or exclusion_violation then
    -- Old clients read 23505 as success.
    raise exception 'DUPLICATE_BOOKING' using errcode = 'P0001', detail = '{}';
end
$$;

create function tallybook.cancel_booking_atomic(
    p_booking_id uuid, p_credit_field text default null, p_restored_credit_value integer default null
)
returns jsonb
language plpgsql volatile security definer
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_answer tallybook.answer;
begin
    v_answer := tallybook.cancel_booking(null, null, null, null, p_booking_id::text, true, 'service_role', null,
        null, 'service_role', 'cancel_booking_atomic', null, null, false);
    perform tallybook.raise_refusal(v_answer);
    return v_answer.data || jsonb_build_object('success', true, 'booking_id', p_booking_id,
        'booking_code', v_answer.data -> 'booking_id');
end
$$;

-- A signed grant or correction of one balance, with a reason. The one home of this rule, for the command line, the
-- staff addresses and people at the SQL editor.
create function tallybook.adjust_credits(
    p_contact_id uuid, p_credit_type text, p_credits integer, p_reason text, p_actor text,
    p_credential text, p_route text, p_key text, p_fingerprint bytea, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_answer tallybook.answer;
    v_largest integer;
    v_mirrored boolean;
    v_hubspot_id text;
    v_balance record;
    v_entry bigint;
    v_data jsonb;
begin
    if p_key is not null and not p_dry_run then
        v_answer := tallybook.begin_request(p_credential, p_contact_id, p_route, p_key, p_fingerprint);
        if v_answer.replayed is not null then
            return v_answer;
        end if;
    end if;
    perform from tallybook.contacts c where c.id = p_contact_id and c.merged_into is null for no key update;
    if not found then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    end if;
    select t.largest_balance, t.hubspot_property is not null into v_largest, v_mirrored
    from tallybook.credit_types t where t.name = p_credit_type;
    if not found then
        return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'credit_type',
            'problem', 'is none of ' || (select string_agg(t.name, ', ' order by t.name) from tallybook.credit_types t)));
    elsif p_credits is null or p_credits = 0 then
        return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'credits', 'problem', 'must not be 0'));
    elsif nullif(btrim(p_reason), '') is null then
        return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'reason', 'problem', 'is missing'));
    end if;
    perform tallybook.expire_overdue_holds(p_contact_id, pg_catalog.clock_timestamp());
    select b.balance, b.held into v_balance from tallybook.credit_balances b
    where b.contact_id = p_contact_id and b.credit_type = p_credit_type;
    if not found and v_mirrored then
        -- A row made now would pass for the whole balance, although HubSpot was never asked for its number.
        select c.hubspot_id into v_hubspot_id from tallybook.contacts c where c.id = p_contact_id;
        if v_hubspot_id is not null then
            return tallybook.refuse('BALANCE_UNKNOWN', jsonb_build_object('hubspot_id', v_hubspot_id));
        end if;
    end if;
    if coalesce(v_balance.balance, 0)::bigint + p_credits < coalesce(v_balance.held, 0) then
        return tallybook.refuse('BALANCE_TOO_LOW', jsonb_build_object('balance', coalesce(v_balance.balance, 0),
            'held', coalesce(v_balance.held, 0), 'credits', p_credits));
    elsif coalesce(v_balance.balance, 0)::bigint + p_credits > v_largest then
        return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'credits',
            'problem', 'would make the balance larger than ' || v_largest));
    end if;
    v_data := jsonb_build_object('contact_id', p_contact_id, 'credit_type', p_credit_type, 'credits', p_credits,
        'balance_after', coalesce(v_balance.balance, 0) + p_credits);
    if p_dry_run then
        return tallybook.grant_answer('ok', v_data || '{"dry_run": true}');
    end if;
    insert into tallybook.credit_balances (contact_id, credit_type) values (p_contact_id, p_credit_type)
    on conflict on constraint credit_balances_pkey do nothing;
    insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)
    values (p_contact_id, p_credit_type, p_credits, case when p_credits > 0 then 'grant' else 'correction' end, p_actor)
    returning id into v_entry;
    v_data := v_data || jsonb_build_object('entry_id', v_entry);
    perform tallybook.record('credits.adjusted', 'contact', p_contact_id, p_contact_id, p_actor,
        jsonb_build_object('credit_type', p_credit_type, 'credits', p_credits, 'entry_id', v_entry),
        jsonb_build_object('reason', p_reason));
    if p_key is not null then
        perform tallybook.end_request(p_credential, p_contact_id, p_route, p_key, p_fingerprint, 'created', v_data);
    end if;
    if v_mirrored then
        perform tallybook.note_changes(array['contact'], array[p_contact_id]);
    end if;
    return tallybook.grant_answer('created', v_data);
end
$$;

-- A contact as people write it: UUID, HubSpot id, `student:1599005` or `email:a@b.c`. Follows merges. NULL: none;
-- raises AMBIGUOUS_CONTACT when several share a student ID.
create function tallybook.find_contact(p_ref text)
returns uuid
language plpgsql stable
set search_path = ''
as $$
declare
    v_kind text := case when p_ref like 'student:%' then 'student_id' when p_ref like 'email:%' then 'email'
                        when p_ref ~ '^[0-9]+$' then 'hubspot_id' else 'id' end;
    v_value text := case v_kind when 'student_id' then upper(btrim(substr(p_ref, 9)))
                                when 'email' then lower(btrim(substr(p_ref, 7))) else p_ref end;
    v_ids uuid[];
begin
    -- One condition per kind, so that each finds its index.
    select array_agg(distinct c.id) into v_ids
    from (
        select c.id from tallybook.contacts c where v_kind = 'id' and c.id = tallybook.uuid_or_null(p_ref)
        union all
        select c.id from tallybook.contacts c
        where v_kind = 'hubspot_id' and c.hubspot_id = v_value and c.merged_into is null
        union all
        select c.id from tallybook.contacts c
        where v_kind = 'student_id' and c.student_id = v_value and c.merged_into is null
        union all
        select c.id from tallybook.contacts c where v_kind = 'email' and c.email = v_value and c.merged_into is null
        union all
        select c.id from tallybook.contact_aliases a
        join tallybook.contacts c on c.id = a.contact_id and c.merged_into is null
        where a.kind = v_kind and a.value = v_value
    ) c;
    if cardinality(v_ids) > 1 then
        raise exception 'AMBIGUOUS_CONTACT' using errcode = 'P0001',
            detail = jsonb_build_object('contact_ids', v_ids)::text;
    end if;
    -- A merged contact's UUID leads to the survivor; a circle, which verify reports, leads nowhere.
    for i in 1..100 loop
        exit when not exists (select from tallybook.contacts c where c.id = v_ids[1] and c.merged_into is not null);
        select array[c.merged_into] into v_ids from tallybook.contacts c where c.id = v_ids[1];
    end loop;
    return v_ids[1];
end
$$;

create function tallybook.grant_credits(p_contact text, p_type text, p_n integer, p_reason text)
returns jsonb
language plpgsql volatile security definer
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_answer tallybook.answer;
begin
    v_answer := tallybook.adjust_credits(tallybook.find_contact(p_contact), p_type, p_n, p_reason,
        'service_role', null, null, null, null, false);
    perform tallybook.raise_refusal(v_answer);
    return v_answer.data;
end
$$;
