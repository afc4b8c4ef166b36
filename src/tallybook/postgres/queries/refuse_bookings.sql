-- The creation of these bookings was refused before it was applied.
select tallybook.refuse_bookings(%(token)s, %(ids)s::uuid[])
