-- A contact comes back from HubSpot's recycle bin, or is made there anew: bookings that left the outbox meanwhile.

select tallybook.begin_migration('20261121002090', 'tell_of_bookings_again', '0.1.0');

-- While its contact is archived, a booking HubSpot has not heard of is dropped once it is cancelled or left so
-- (`booking_plan`). That holds only as long as the contact is away.
create function tallybook.tell_of_bookings_again()
returns trigger
language plpgsql
set search_path = ''
as $$
declare
    v_ids uuid[];
begin
    select array_agg(b.id order by b.id) into v_ids
    from tallybook.bookings b where b.contact_id = new.id and b.hubspot_id is null;
    if v_ids is not null then
        perform tallybook.note_changes(array_fill('booking'::text, array[cardinality(v_ids)]), v_ids);
    end if;
    return null;
end
$$;

create trigger contacts_tell_of_bookings_again after update of archived_at on tallybook.contacts
    for each row when (old.archived_at is not null and new.archived_at is null and new.merged_into is null
                       and new.erased_at is null)
    execute function tallybook.tell_of_bookings_again();

select tallybook.secure();
