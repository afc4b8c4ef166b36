-- Which of these records are bookings of ours of which both ends are known.
select tallybook.joined_bookings(%(hubspot_ids)s)
