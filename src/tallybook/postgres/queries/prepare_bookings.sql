-- What is to be sent about leased bookings, decided and marked as sent now.
select tallybook.prepare_bookings(%(token)s, %(ids)s::uuid[], %(skip)s::text[])
