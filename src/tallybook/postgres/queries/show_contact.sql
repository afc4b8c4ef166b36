-- One contact as staff see it: balances, bookings, the newest entries.
select jsonb_build_object(
    'id', c.id, 'hubspot_id', c.hubspot_id, 'student_id', c.student_id, 'email', c.email,
    'name', nullif(btrim(concat_ws(' ', c.firstname, c.lastname)), ''), 'ndecc_exam_date', c.ndecc_exam_on,
    'archived_at', tallybook.instant(c.archived_at), 'created_at', tallybook.instant(c.created_at),
    'synced_at', tallybook.instant(c.synced_at),
    'waiting_for_hubspot', exists (select from tallybook.outbox o where o.object_type = 'contact' and o.object_id = c.id),
    'credits', (select coalesce(jsonb_agg(jsonb_build_object('credit_type', b.credit_type, 'balance', b.balance,
                    'held', b.held, 'in_hubspot', b.crm_base) order by b.credit_type), '[]')
                from tallybook.credit_balances b where b.contact_id = c.id),
    'bookings', (select coalesce(jsonb_agg(jsonb_build_object('booking_id', b.booking_id, 'status', b.status,
                     'starts_at', tallybook.instant(b.starts_at), 'token_used', b.token_used, 'id', b.id)
                     order by b.starts_at desc), '[]')
                 from tallybook.bookings b where b.contact_id = c.id),
    'entries', (select coalesce(jsonb_agg(jsonb_build_object('at', tallybook.instant(e.created_at),
                    'credit_type', e.credit_type, 'delta', e.delta, 'balance_after', e.balance_after,
                    'reason', e.reason, 'actor', e.actor) order by e.id desc), '[]')
                from (select * from tallybook.credit_entries e where e.contact_id = c.id
                      order by e.id desc limit 20) e))
from tallybook.contacts c where c.id = %(contact_id)s
