-- The next bookings that HubSpot should show, in the order of their ids.
select b.id from tallybook.bookings b
join tallybook.contacts c on c.id = b.contact_id and c.erased_at is null
where b.id > %(after)s
order by b.id limit %(limit)s
