-- A HubSpot id that was given out resolves for ever, also when a deleted session or booking was made there anew.

select tallybook.begin_migration('20261121001940', 'keep_record_ids', '0.1.0');

create table tallybook.record_aliases (
    object_type text not null,
    hubspot_id text not null,
    object_id uuid not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint record_aliases_pkey primary key (object_type, hubspot_id),
    constraint record_aliases_object_type_is_known check (object_type in ('booking', 'mock_exam'))
);

create function tallybook.keep_record_id()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
    insert into tallybook.record_aliases (object_type, hubspot_id, object_id)
    values (tg_argv[0], old.hubspot_id, old.id)
    on conflict on constraint record_aliases_pkey do update set object_id = excluded.object_id;
    return null;
end
$$;

create trigger mock_exams_keep_record_id after update of hubspot_id on tallybook.mock_exams
    for each row when (old.hubspot_id is not null and old.hubspot_id is distinct from new.hubspot_id)
    execute function tallybook.keep_record_id('mock_exam');
create trigger bookings_keep_record_id after update of hubspot_id on tallybook.bookings
    for each row when (old.hubspot_id is not null and old.hubspot_id is distinct from new.hubspot_id)
    execute function tallybook.keep_record_id('booking');

create or replace function tallybook.find_mock_exam(p_ref text)
returns uuid
language sql stable
as $$
    select coalesce(
        (select e.id from tallybook.mock_exams e
         where e.id = tallybook.uuid_or_null(p_ref) or e.hubspot_id = p_ref),
        (select a.object_id from tallybook.record_aliases a
         where a.object_type = 'mock_exam' and a.hubspot_id = p_ref))
$$;

create or replace function tallybook.find_booking(p_ref text)
returns uuid
language sql stable
as $$
    select b.id from (
        select 1 as rank, b.id from tallybook.bookings b where b.hubspot_id = p_ref
        union all
        select 2, b.id from tallybook.bookings b where b.id = tallybook.uuid_or_null(p_ref)
        union all
        select 3, b.id from tallybook.bookings b where b.booking_id = p_ref collate "C"
        union all
        select 4, a.object_id from tallybook.record_aliases a
        where a.object_type = 'booking' and a.hubspot_id = p_ref
    ) b order by b.rank limit 1
$$;

select tallybook.secure();
