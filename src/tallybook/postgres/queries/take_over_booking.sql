-- One booking of the old database; what became of it.
select tallybook.take_over_booking(%(booking)s::jsonb, %(hubspot_id)s)
