-- How many seats are taken.
select count(*) from tallybook.bookings where status <> 'Cancelled'
