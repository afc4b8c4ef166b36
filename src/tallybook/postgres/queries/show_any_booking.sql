-- One booking as staff see it: its session, its contact, its entries.
select tallybook.booking_detail(b, e) || jsonb_build_object(
    'contact', jsonb_build_object('id', c.id, 'student_id', c.student_id, 'email', c.email,
        'name', nullif(btrim(concat_ws(' ', c.firstname, c.lastname)), '')),
    'mock_exam', e.id, 'booked_by', b.booked_by, 'cancelled_by', b.cancelled_by,
    'cancel_reason', b.cancel_reason, 'refunded', b.refunded,
    'waiting_for_hubspot', exists (select from tallybook.outbox o where o.object_type = 'booking' and o.object_id = b.id),
    'entries', (select coalesce(jsonb_agg(jsonb_build_object('at', tallybook.instant(x.created_at),
                    'credit_type', x.credit_type, 'delta', x.delta, 'balance_after', x.balance_after,
                    'reason', x.reason, 'actor', x.actor) order by x.id), '[]')
                from tallybook.credit_entries x where x.booking_id = b.id))
from tallybook.bookings b
join tallybook.mock_exams e on e.id = b.mock_exam_id
join tallybook.contacts c on c.id = b.contact_id
where b.id = tallybook.find_booking(%(booking)s)
