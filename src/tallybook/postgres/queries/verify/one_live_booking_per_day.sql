-- No contact has two live bookings of one type on one date; imported ones that had are warned of, not refused.
select 'contact ' || b.contact_id as object,
    format('%s live bookings of %s on %s', count(*), b.mock_type, b.exam_on) as problem
from tallybook.bookings b
where b.status <> 'Cancelled' and not b.grandfathered
group by b.contact_id, b.mock_type, b.exam_on
having count(*) > 1
