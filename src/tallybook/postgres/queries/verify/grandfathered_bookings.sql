-- Live bookings that were imported although they break a rule that came later.
select 'booking ' || b.id as object, format('%s on %s was imported although it clashes', b.mock_type, b.exam_on) as problem
from tallybook.bookings b
where b.status <> 'Cancelled' and b.grandfathered
