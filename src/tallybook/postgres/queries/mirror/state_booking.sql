-- What HubSpot should show of these bookings and with what it should associate them, whether they are settled, and of
-- which version that is. What is archived or merged at the other end is not linked anew.
select b.id, b.hubspot_id,
    not exists (select from tallybook.outbox o where o.object_type = 'booking' and o.object_id = b.id)
        and not exists (select from tallybook.inbox i where i.object_type = 'booking' and i.hubspot_id = b.hubspot_id)
        and not exists (select from tallybook.sync_conflicts x
                        where x.object_type = 'booking' and x.object_id = b.id and x.resolved_at is null),
    concat_ws(':', b.xmin, c.hubspot_id, e.hubspot_id), false, tallybook.booking_mirror(b),
    jsonb_build_object(
        'contact', case when c.archived_at is null and c.merged_into is null then c.hubspot_id end,
        'mock_exam', case when e.archived_at is null then e.hubspot_id end)
from tallybook.bookings b
join tallybook.contacts c on c.id = b.contact_id and c.erased_at is null
join tallybook.mock_exams e on e.id = b.mock_exam_id
where b.id = any (%(ids)s)
