-- What can be bought and booked (loaded from catalog.toml), and the people.

select tallybook.begin_migration('20261121000200', 'create_catalog_and_contacts', '0.1.0');

create table tallybook.catalog_state (
    only_row boolean not null default true,
    hash text not null,
    applied_at timestamptz not null default clock_timestamp(),
    constraint catalog_state_pkey primary key (only_row),
    constraint catalog_state_has_one_row check (only_row)
);

create table tallybook.credit_types (
    name text not null,
    token_name text not null,
    -- NULL: not mirrored to HubSpot; a missing balance is then 0 instead of unknown.
    hubspot_property text,
    welcome_credits integer not null default 0,
    largest_balance integer not null,
    retired_at timestamptz,
    constraint credit_types_pkey primary key (name),
    constraint credit_types_token_name_key unique (token_name),
    constraint credit_types_hubspot_property_key unique (hubspot_property),
    constraint credit_types_welcome_is_not_negative check (welcome_credits between 0 and largest_balance),
    constraint credit_types_token_is_not_override check (token_name <> 'Admin Override')
);

create table tallybook.mock_types (
    name text not null,
    -- In the order in which they are spent: the specific one first.
    pays_with text[] not null,
    asks text[] not null,
    prerequisite_rule text not null,
    booking_closes_min integer not null,
    cancellation_closes_min integer not null,
    refund_rule text not null,
    refund_cutoff_min integer not null default 0,
    retired_at timestamptz,
    constraint mock_types_pkey primary key (name),
    constraint mock_types_can_be_paid check (cardinality(pays_with) > 0),
    constraint mock_types_prerequisite_rule_is_known
        check (prerequisite_rule in ('any_booked', 'all_booked', 'any_attended', 'all_attended')),
    constraint mock_types_refund_rule_is_known check (refund_rule in ('always', 'before_cutoff', 'never')),
    constraint mock_types_minutes_are_not_negative
        check (booking_closes_min >= 0 and cancellation_closes_min >= 0 and refund_cutoff_min >= 0)
);

create table tallybook.places (
    name text not null,
    time_zone text not null,
    retired_at timestamptz,
    constraint places_pkey primary key (name)
);

create table tallybook.metered_actions (
    name text not null,
    credit_type text not null,
    cost_credits integer not null,
    retired_at timestamptz,
    constraint metered_actions_pkey primary key (name),
    constraint metered_actions_credit_type_fkey foreign key (credit_type) references tallybook.credit_types (name),
    constraint metered_actions_cost_is_positive check (cost_credits > 0)
);

create table tallybook.packs (
    name text not null,
    credit_type text not null,
    credits integer not null,
    retired_at timestamptz,
    constraint packs_pkey primary key (name),
    constraint packs_credit_type_fkey foreign key (credit_type) references tallybook.credit_types (name),
    constraint packs_credits_are_positive check (credits > 0)
);

create table tallybook.contacts (
    id uuid not null default gen_random_uuid(),
    hubspot_id text,
    email text,
    student_id text,
    firstname text,
    lastname text,
    ndecc_exam_on date,
    -- Part of every token; raising it signs the contact out everywhere.
    session_epoch integer not null default 1,
    merged_into uuid,
    archived_at timestamptz,
    erased_at timestamptz,
    -- The mirror's state (mirror.md 3): the last own stamp absorbed and the newest answer absorbed.
    crm_stamp text,
    crm_modified_at timestamptz,
    crm_unread boolean not null default false,
    write_no bigint not null default 0,
    crm_base jsonb not null default '{}',
    crm_sent jsonb not null default '{}',
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    synced_at timestamptz,
    constraint contacts_pkey primary key (id),
    constraint contacts_merged_into_fkey foreign key (merged_into) references tallybook.contacts (id),
    constraint contacts_is_not_merged_into_itself check (merged_into <> id),
    constraint contacts_hubspot_id_is_digits check (hubspot_id ~ '^[0-9]{1,20}$'),
    constraint contacts_email_is_normal check (email = lower(btrim(email)) and email <> ''),
    constraint contacts_student_id_is_normal check (student_id ~ '^[A-Z0-9]+$')
) with (fillfactor = 85);

create unique index contacts_hubspot_id_key on tallybook.contacts (hubspot_id) where merged_into is null;
create unique index contacts_email_key on tallybook.contacts (email) where merged_into is null;
create index contacts_student_id_idx on tallybook.contacts (student_id);
create index contacts_merged_into_idx on tallybook.contacts (merged_into) where merged_into is not null;

-- Any id ever given out resolves for ever, also after a merge or a changed student ID.
create table tallybook.contact_aliases (
    kind text not null,
    value text not null,
    contact_id uuid not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint contact_aliases_pkey primary key (kind, value, contact_id),
    constraint contact_aliases_kind_is_known check (kind in ('hubspot_id', 'student_id', 'email')),
    constraint contact_aliases_contact_id_fkey foreign key (contact_id) references tallybook.contacts (id)
);

-- Loads the catalog: upserts what is there, retires what left. Never deletes: entries and bookings point to it.
create function tallybook.apply_catalog(p_catalog jsonb)
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_now timestamptz := pg_catalog.clock_timestamp();
begin
    insert into tallybook.credit_types as t
        (name, token_name, hubspot_property, welcome_credits, largest_balance, retired_at)
    select r.name, r.token_name, r.hubspot_property, r.welcome_credits, r.largest_balance, null
    from jsonb_populate_recordset(null::tallybook.credit_types, p_catalog -> 'credit_types') r
    on conflict (name) do update
        set token_name = excluded.token_name, hubspot_property = excluded.hubspot_property,
            welcome_credits = excluded.welcome_credits, largest_balance = excluded.largest_balance,
            retired_at = null;
    update tallybook.credit_types t set retired_at = coalesce(t.retired_at, v_now)
    where t.name not in (select r ->> 'name' from jsonb_array_elements(p_catalog -> 'credit_types') r);

    insert into tallybook.mock_types as t (name, pays_with, asks, prerequisite_rule, booking_closes_min,
        cancellation_closes_min, refund_rule, refund_cutoff_min, retired_at)
    select r.name, r.pays_with, r.asks, r.prerequisite_rule, r.booking_closes_min,
        r.cancellation_closes_min, r.refund_rule, r.refund_cutoff_min, null
    from jsonb_populate_recordset(null::tallybook.mock_types, p_catalog -> 'mock_types') r
    on conflict (name) do update
        set pays_with = excluded.pays_with, asks = excluded.asks, prerequisite_rule = excluded.prerequisite_rule,
            booking_closes_min = excluded.booking_closes_min,
            cancellation_closes_min = excluded.cancellation_closes_min, refund_rule = excluded.refund_rule,
            refund_cutoff_min = excluded.refund_cutoff_min, retired_at = null;
    update tallybook.mock_types t set retired_at = coalesce(t.retired_at, v_now)
    where t.name not in (select r ->> 'name' from jsonb_array_elements(p_catalog -> 'mock_types') r);

    insert into tallybook.places as t (name, time_zone, retired_at)
    select r.name, r.time_zone, null from jsonb_populate_recordset(null::tallybook.places, p_catalog -> 'places') r
    on conflict (name) do update set time_zone = excluded.time_zone, retired_at = null;
    update tallybook.places t set retired_at = coalesce(t.retired_at, v_now)
    where t.name not in (select r ->> 'name' from jsonb_array_elements(p_catalog -> 'places') r);

    insert into tallybook.metered_actions as t (name, credit_type, cost_credits, retired_at)
    select r.name, r.credit_type, r.cost_credits, null
    from jsonb_populate_recordset(null::tallybook.metered_actions, p_catalog -> 'actions') r
    on conflict (name) do update
        set credit_type = excluded.credit_type, cost_credits = excluded.cost_credits, retired_at = null;
    update tallybook.metered_actions t set retired_at = coalesce(t.retired_at, v_now)
    where t.name not in (select r ->> 'name' from jsonb_array_elements(p_catalog -> 'actions') r);

    insert into tallybook.packs as t (name, credit_type, credits, retired_at)
    select r.name, r.credit_type, r.credits, null
    from jsonb_populate_recordset(null::tallybook.packs, p_catalog -> 'packs') r
    on conflict (name) do update
        set credit_type = excluded.credit_type, credits = excluded.credits, retired_at = null;
    update tallybook.packs t set retired_at = coalesce(t.retired_at, v_now)
    where t.name not in (select r ->> 'name' from jsonb_array_elements(p_catalog -> 'packs') r);

    insert into tallybook.catalog_state (hash) values (p_catalog ->> 'hash')
    on conflict (only_row) do update set hash = excluded.hash, applied_at = v_now;
end
$$;
