-- What waits for HubSpot exists, is counted forwards, and is leased with a token and an end or not at all.
select o.object_type || ' ' || o.object_id as object,
    format('version %s, attempts %s, lease %s until %s', o.version, o.attempts, o.lease_token, o.leased_until) as problem
from tallybook.outbox o
where o.version < 1 or o.attempts < 0 or (o.lease_token is null) <> (o.leased_until is null)
union all
select o.object_type || ' ' || o.object_id, 'does not exist'
from tallybook.outbox o
where not case o.object_type
    when 'contact' then exists (select from tallybook.contacts c where c.id = o.object_id)
    when 'booking' then exists (select from tallybook.bookings b where b.id = o.object_id)
    else exists (select from tallybook.mock_exams e where e.id = o.object_id) end
