-- The next contacts that HubSpot should show, in the order of their ids.
select c.id from tallybook.contacts c
where c.id > %(after)s and c.merged_into is null and c.erased_at is null
order by c.id limit %(limit)s
