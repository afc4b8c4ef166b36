-- A session with so many seats, so many days from now; gives its id.
insert into tallybook.mock_exams (mock_type, exam_on, start_time, end_time, time_zone, starts_at, ends_at,
    location, capacity)
select 'Situational Judgment', d, '09:00', '12:00', 'America/Toronto',
    (d + time '09:00') at time zone 'America/Toronto', (d + time '12:00') at time zone 'America/Toronto',
    'Mississauga', %(seats)s
from (select current_date + %(days_ahead)s::integer as d) day
returning id
