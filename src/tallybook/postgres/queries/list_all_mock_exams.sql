-- Sessions as staff see them, soonest first: also full, closed and past ones.
select jsonb_build_object('id', e.id, 'hubspot_id', e.hubspot_id, 'mock_type', e.mock_type, 'mock_set', e.mock_set,
    'exam_date', e.exam_on, 'start_time', to_char(e.start_time, 'HH24:MI'), 'end_time', to_char(e.end_time, 'HH24:MI'),
    'time_zone', e.time_zone, 'location', e.location, 'capacity', e.capacity, 'booked', e.total_bookings,
    'activation', case when e.activation = 'scheduled' and e.opens_at <= clock_timestamp() then 'active'
                       else e.activation end,
    'opens_at', tallybook.instant(e.opens_at))
from tallybook.mock_exams e
where e.archived_at is null and (%(mock_type)s::text is null or e.mock_type = %(mock_type)s)
    and (%(past)s or e.ends_at > clock_timestamp())
order by e.starts_at, e.id limit %(limit)s
