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
