-- Puts the next sessions that HubSpot shows otherwise into the outbox; gives where to go on.
select tallybook.note_bookings_counted(%(after)s::uuid, %(limit)s)
