-- A booking_id is `Type-Student-Month D, YYYY`, perhaps with a number (imported ones are as they were), and no other
-- booking has it.
select 'booking ' || b.id as object, format('booking_id %L', b.booking_id) as problem
from tallybook.bookings b
where b.booked_by <> 'import' and (not starts_with(b.booking_id, b.mock_type || '-')
    or substr(b.booking_id, length(b.mock_type) + 2) collate "C" !~ ('^[A-Za-z0-9]+-(January|February|March|April|May|'
        'June|July|August|September|October|November|December) [1-9][0-9]?, [0-9]{4}( \([1-9][0-9]*\))?$'))
union all
select format('booking_id %L', b.booking_id), format('%s bookings have it', count(*))
from tallybook.bookings b
group by b.booking_id
having count(*) > 1
