-- What becomes of bookings HubSpot has not heard of when their contact is deleted there.

select tallybook.begin_migration('20261121002041', 'leave_bookings_of_the_deleted', '0.1.0');

-- Whether a person was asked about a contact that HubSpot has deleted, with a booking of that time, and left it so.
create function tallybook.was_left_deleted(p_contact_id uuid, p_booked_at timestamptz)
returns boolean
language sql stable
set search_path = ''
as $$
    select exists (select from tallybook.sync_conflicts s
                   where s.object_type = 'contact' and s.object_id = p_contact_id and s.kind = 'deleted'
                       and s.resolution = 'dismiss' and s.resolved_at >= p_booked_at)
        and not exists (select from tallybook.sync_conflicts s
                        where s.object_type = 'contact' and s.object_id = p_contact_id and s.kind = 'deleted'
                            and s.resolved_at is null)
$$;

-- While a person has to decide about its contact, a booking HubSpot has not heard of waits. Once it was decided to leave
-- the contact deleted it is not told any more, nor is one that was cancelled, until the contact comes back (below).
create or replace function tallybook.booking_plan(p_booking tallybook.bookings, p_skip text[])
returns tallybook.push_plan
language plpgsql stable
as $$
declare
    v_contact tallybook.contacts;
    v_exam record;
    v_links record;
    v_changes jsonb;
begin
    if tallybook.is_deleted_there('booking', p_booking.id) then
        return row('drop', '{}')::tallybook.push_plan;
    elsif p_booking.hubspot_id is null then
        select * into v_contact from tallybook.contacts c where c.id = p_booking.contact_id;
        select e.hubspot_id, e.archived_at into v_exam from tallybook.mock_exams e where e.id = p_booking.mock_exam_id;
        if v_contact.erased_at is not null or v_contact.archived_at is not null
                and (p_booking.status = 'Cancelled' or tallybook.was_left_deleted(v_contact.id, p_booking.created_at)) then
            return row('drop', '{}')::tallybook.push_plan;
        elsif v_contact.hubspot_id is null or v_contact.archived_at is not null
                or v_exam.hubspot_id is null or v_exam.archived_at is not null then
            return row('wait', '{}')::tallybook.push_plan;
        end if;
        return row(case when p_booking.crm_unknown then 'upsert' else 'create' end, tallybook.given_texts(
            tallybook.booking_mirror(p_booking) || jsonb_build_object(
                'name', nullif(btrim(concat_ws(' ', v_contact.firstname, v_contact.lastname)), ''),
                'email', v_contact.email, 'student_id', v_contact.student_id, 'tallybook_id', p_booking.id),
            p_skip))::tallybook.push_plan;
    end if;
    v_changes := tallybook.with_our_id(tallybook.changed_texts('booking', p_booking.id,
        tallybook.booking_mirror(p_booking), p_booking.crm_base, p_skip), p_booking.id, p_booking.crm_base);
    v_links := tallybook.booking_links(p_booking);
    if v_changes <> '{}' or v_links.contact_hubspot_id is not null or v_links.mock_exam_hubspot_id is not null then
        return row('update', v_changes)::tallybook.push_plan;
    end if;
    -- Moved to a session HubSpot has not got yet: that it takes place there now is still to be told.
    return row(case when exists (select from tallybook.mock_exams e
                                 where e.id = p_booking.mock_exam_id and e.hubspot_id is null and e.archived_at is null)
                    then 'wait' else 'drop' end, '{}')::tallybook.push_plan;
end
$$;

-- While its contact is archived, a booking HubSpot has not heard of is dropped once it is cancelled or left so
-- (`booking_plan`). That holds only as long as the contact is away. At the commit, since outbox rows are locked last.
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

create constraint trigger contacts_tell_of_bookings_again after update of archived_at on tallybook.contacts
    deferrable initially deferred
    for each row when (old.archived_at is not null and new.archived_at is null and new.merged_into is null
                       and new.erased_at is null)
    execute function tallybook.tell_of_bookings_again();

select tallybook.secure();
