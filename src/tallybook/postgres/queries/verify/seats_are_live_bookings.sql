-- A session's seats taken are its live bookings.
select 'mock exam ' || e.id as object,
    format('%s seats taken; %s live bookings', e.total_bookings, b.live) as problem
from tallybook.mock_exams e
cross join lateral (
    select count(*) as live from tallybook.bookings b where b.mock_exam_id = e.id and b.status <> 'Cancelled'
) b
where e.total_bookings <> b.live
union all
select 'booking ' || b.id, 'its mock exam does not exist'
from tallybook.bookings b
where not exists (select from tallybook.mock_exams e where e.id = b.mock_exam_id)
