-- No session is oversold.
select 'mock exam ' || e.id as object,
    format('%s of %s seats taken', e.total_bookings, e.capacity) as problem
from tallybook.mock_exams e
where e.total_bookings > e.capacity or e.total_bookings < 0
