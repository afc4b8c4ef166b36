-- The contacts for whom bookings came back or were changed again.
select tallybook.contacts_with_effects()
