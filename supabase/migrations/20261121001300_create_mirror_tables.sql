-- What the mirror remembers: hints waiting to be followed, lanes that pause, alerts; and our values as HubSpot's texts.

select tallybook.begin_migration('20261121001300', 'create_mirror_tables', '0.1.0');

-- A text was found that is no number: ours has to be pushed over it, although the base has not moved.
alter table tallybook.credit_balances add column crm_unreadable boolean not null default false;

-- A create was sent and its outcome is not known: the next attempt has to be an upsert.
alter table tallybook.contacts add column crm_unknown boolean not null default false;
alter table tallybook.mock_exams add column crm_unknown boolean not null default false;
alter table tallybook.bookings
    add column crm_unknown boolean not null default false,
    -- The records HubSpot's booking is associated with, as far as we know.
    add column crm_contact_hubspot_id text,
    add column crm_mock_exam_hubspot_id text;

-- An open conflict that freezes keeps its field from being merged and from being written, on both sides.
alter table tallybook.sync_conflicts add column freezes boolean not null default false;

-- Hints that a record changed in HubSpot: from webhooks, from a search, from ourselves. Never values.
create table tallybook.inbox (
    id bigint generated always as identity,
    object_type text not null,
    hubspot_id text not null,
    subscription_type text not null,
    property_name text not null default '',
    event_id text not null default '',
    occurred_at timestamptz not null default 'epoch',
    -- The ids of a merge.
    details jsonb not null default '{}',
    received_at timestamptz not null default clock_timestamp(),
    next_attempt_at timestamptz not null default clock_timestamp(),
    attempts integer not null default 0,
    lease_token uuid,
    leased_until timestamptz,
    last_error text,
    dead_at timestamptz,
    constraint inbox_pkey primary key (id),
    constraint inbox_event_key
        unique (subscription_type, object_type, hubspot_id, occurred_at, property_name, event_id),
    constraint inbox_object_type_is_known check (object_type in ('booking', 'contact', 'mock_exam'))
) with (fillfactor = 70);

create index inbox_due_idx on tallybook.inbox (next_attempt_at) where dead_at is null;
create index outbox_due_idx on tallybook.outbox (object_type, next_attempt_at) where dead_at is null;

-- One row per direction of traffic; a paused lane keeps its rows and probes with one record at `resume_at`.
create table tallybook.sync_lanes (
    lane text not null,
    paused_at timestamptz,
    reason text,
    -- HubSpot's own words.
    words text,
    resume_at timestamptz,
    constraint sync_lanes_pkey primary key (lane),
    constraint sync_lanes_lane_is_known check (lane in ('booking', 'contact', 'mock_exam', 'pull')),
    constraint sync_lanes_paused_says_why check ((paused_at is null) = (reason is null))
);

insert into tallybook.sync_lanes (lane) values ('booking'), ('contact'), ('mock_exam'), ('pull');

create table tallybook.sync_alerts (
    kind text not null,
    subject text not null default '',
    details jsonb not null default '{}',
    raised_at timestamptz not null default clock_timestamp(),
    sent_at timestamptz,
    cleared_at timestamptz,
    clear_sent_at timestamptz,
    constraint sync_alerts_pkey primary key (kind, subject)
);

create function tallybook.raise_alert(p_kind text, p_subject text, p_details jsonb)
returns void
language sql volatile
set search_path = ''
as $$
    insert into tallybook.sync_alerts as a (kind, subject, details) values (p_kind, p_subject, p_details)
    on conflict on constraint sync_alerts_pkey do update
        set details = excluded.details, raised_at = pg_catalog.clock_timestamp(),
            sent_at = null, cleared_at = null, clear_sent_at = null
        where a.cleared_at is not null
$$;

create function tallybook.clear_alert(p_kind text, p_subject text)
returns void
language sql volatile
set search_path = ''
as $$
    update tallybook.sync_alerts set cleared_at = pg_catalog.clock_timestamp()
    where kind = p_kind and subject = p_subject and cleared_at is null
$$;

create function tallybook.open_conflict(
    p_object_type text, p_object_id uuid, p_field text, p_kind text, p_ours text, p_theirs text,
    p_details jsonb, p_freezes boolean
)
returns void
language sql volatile
set search_path = ''
as $$
    insert into tallybook.sync_conflicts (object_type, object_id, field, kind, ours, theirs, details, freezes)
    values (p_object_type, p_object_id, p_field, p_kind, p_ours, p_theirs, p_details, p_freezes)
    on conflict (object_type, object_id, field, kind) where resolved_at is null do update
        set ours = excluded.ours, theirs = excluded.theirs, details = excluded.details, freezes = excluded.freezes
$$;

create function tallybook.is_frozen(p_object_type text, p_object_id uuid, p_field text)
returns boolean
language sql stable
set search_path = ''
as $$
    select exists (select from tallybook.sync_conflicts c
                   where c.object_type = p_object_type and c.object_id = p_object_id and c.field = p_field
                       and c.freezes and c.resolved_at is null)
$$;

-- Asks for a record to be read again; asking twice is asking once.
create function tallybook.ask_to_read(p_object_type text, p_hubspot_ids text[], p_after_s numeric)
returns void
language sql volatile
set search_path = ''
as $$
    insert into tallybook.inbox as i (object_type, hubspot_id, subscription_type, next_attempt_at)
    select p_object_type, u.id, 'reread', pg_catalog.clock_timestamp() + make_interval(secs => p_after_s)
    from (select distinct x as id from unnest(p_hubspot_ids) x where x is not null) u
    order by u.id
    on conflict on constraint inbox_event_key do update
        set next_attempt_at = least(i.next_attempt_at, excluded.next_attempt_at), dead_at = null
$$;

create function tallybook.millis(p_at timestamptz)
returns text
language sql immutable
as $$ select ((extract(epoch from p_at) * 1000)::bigint)::text $$;

-- Our values as the texts HubSpot is sent, by its property names; base and sent values are kept in the same form, so
-- that "is it dirty" is a comparison of texts. NULL: empty there.
create function tallybook.contact_mirror(p_contact tallybook.contacts)
returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'email', p_contact.email, 'student_id', p_contact.student_id,
        'firstname', p_contact.firstname, 'lastname', p_contact.lastname,
        'ndecc_exam_date', p_contact.ndecc_exam_on::text)
$$;

create function tallybook.mock_exam_mirror(p_exam tallybook.mock_exams)
returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'mock_type', p_exam.mock_type, 'mock_set', p_exam.mock_set, 'exam_date', p_exam.exam_on::text,
        'start_time', tallybook.millis(p_exam.starts_at), 'end_time', tallybook.millis(p_exam.ends_at),
        'location', p_exam.location, 'address', p_exam.address, 'capacity', p_exam.capacity::text,
        'total_bookings', p_exam.total_bookings::text,
        'is_active', case p_exam.activation when 'active' then 'true' when 'inactive' then 'false'
                     else 'scheduled' end,
        'scheduled_activation_datetime', tallybook.instant(p_exam.opens_at))
$$;

create function tallybook.booking_mirror(p_booking tallybook.bookings)
returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'booking_id', p_booking.booking_id, 'is_active', p_booking.status, 'token_used', p_booking.token_used,
        'idempotency_key', p_booking.idempotency_key, 'dominant_hand', p_booking.dominant_hand::text,
        'attending_location', p_booking.attending_location, 'attendance', p_booking.attendance,
        'token_refunded', case when p_booking.refunded then 'true' end,
        'token_refunded_at', case when p_booking.refunded then tallybook.millis(p_booking.cancelled_at) end,
        'token_refund_admin', case when p_booking.refunded and p_booking.cancelled_by like 'staff:%'
                              then p_booking.cancelled_by end)
$$;

select tallybook.secure();
