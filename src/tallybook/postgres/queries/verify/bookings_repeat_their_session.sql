-- What a live booking copies from its session is what the session says.
select 'booking ' || b.id as object,
    format('%s %s to %s; its session: %s %s to %s',
           b.mock_type, b.starts_at, b.ends_at, e.mock_type, e.starts_at, e.ends_at) as problem
from tallybook.bookings b
join tallybook.mock_exams e on e.id = b.mock_exam_id
where b.status <> 'Cancelled'
    and (b.mock_type, b.exam_on, b.starts_at, b.ends_at) is distinct from
        (e.mock_type, e.exam_on, e.starts_at, e.ends_at)
