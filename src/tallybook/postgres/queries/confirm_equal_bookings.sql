-- Notes that these bookings are the same on both sides; gives the HubSpot ids of those that are.
select tallybook.confirm_equal_bookings(%(records)s::jsonb)
