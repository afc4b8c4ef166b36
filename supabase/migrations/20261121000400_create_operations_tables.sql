-- Who may come in, what was done, how often, and where the conversation with HubSpot stands.

select tallybook.begin_migration('20261121000400', 'create_operations_tables', '0.1.0');

-- Append-only and free of names: what may have to be erased is in audit_details.
create table tallybook.audit_log (
    id bigint generated always as identity,
    at timestamptz not null default clock_timestamp(),
    actor text not null,
    action text not null,
    object_type text not null,
    object_id text not null,
    contact_id uuid,
    changes jsonb not null default '{}',
    constraint audit_log_pkey primary key (id)
);

create index audit_log_contact_idx on tallybook.audit_log (contact_id, id) where contact_id is not null;
create index audit_log_object_idx on tallybook.audit_log (object_type, object_id, id);

create table tallybook.audit_details (
    audit_id bigint not null,
    contact_id uuid,
    details jsonb not null,
    constraint audit_details_pkey primary key (audit_id),
    constraint audit_details_audit_id_fkey foreign key (audit_id) references tallybook.audit_log (id)
);

create table tallybook.staff (
    id uuid not null default gen_random_uuid(),
    email text not null,
    name text,
    role text not null,
    password_hash text,
    disabled_at timestamptz,
    session_epoch integer not null default 1,
    created_at timestamptz not null default clock_timestamp(),
    constraint staff_pkey primary key (id),
    constraint staff_email_key unique (email),
    constraint staff_email_is_normal check (email = lower(btrim(email)) and email <> ''),
    constraint staff_role_is_known check (role in ('viewer', 'coordinator', 'admin', 'super_admin'))
);

create table tallybook.api_keys (
    id text not null,
    name text not null,
    secret_hash bytea not null,
    scopes text[] not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    constraint api_keys_pkey primary key (id),
    constraint api_keys_scopes_are_known check (scopes <@ array['credits', 'students'] and cardinality(scopes) > 0)
);

create table tallybook.login_challenges (
    id uuid not null default gen_random_uuid(),
    contact_id uuid,
    code_hash bytea,
    tries integer not null default 0,
    used_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    constraint login_challenges_pkey primary key (id),
    constraint login_challenges_contact_id_fkey foreign key (contact_id) references tallybook.contacts (id)
);

create index login_challenges_expires_idx on tallybook.login_challenges (expires_at);

-- Unlogged: after a crash a limit starts afresh, which harms nobody.
create unlogged table tallybook.rate_events (
    key text not null,
    window_start timestamptz not null,
    -- Each connection counts in a row of its own, so that callers behind one address never wait for each other.
    backend integer not null,
    calls integer not null,
    constraint rate_events_pkey primary key (key, window_start, backend)
) with (fillfactor = 70);

create index rate_events_window_idx on tallybook.rate_events (window_start);

-- The call budget of HubSpot for all processes. A slot is in use from sending until one window after the answer.
create unlogged table tallybook.crm_call_slots (
    id bigint generated always as identity,
    kind text not null,
    search boolean not null,
    taken_at timestamptz not null,
    -- When the answer came; until then, when it can have come at the latest.
    answered_at timestamptz not null,
    constraint crm_call_slots_pkey primary key (id)
);

create index crm_call_slots_answered_idx on tallybook.crm_call_slots (search, answered_at);

create table tallybook.job_runs (
    job text not null,
    lease_token uuid,
    leased_until timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    cursor jsonb not null default '{}',
    counts jsonb not null default '{}',
    last_error text,
    constraint job_runs_pkey primary key (job)
);

create table tallybook.sync_state (
    name text not null,
    value jsonb not null,
    updated_at timestamptz not null default clock_timestamp(),
    constraint sync_state_pkey primary key (name)
);

create table tallybook.sync_conflicts (
    id bigint generated always as identity,
    object_type text not null,
    object_id uuid not null,
    field text not null,
    kind text not null,
    ours text,
    theirs text,
    details jsonb not null default '{}',
    opened_at timestamptz not null default clock_timestamp(),
    resolved_at timestamptz,
    resolved_by text,
    resolution text,
    constraint sync_conflicts_pkey primary key (id)
);

create unique index sync_conflicts_one_open on tallybook.sync_conflicts (object_type, object_id, field, kind)
    where resolved_at is null;
