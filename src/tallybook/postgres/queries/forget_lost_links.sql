-- Forgets associations that HubSpot no longer shows.
select tallybook.forget_lost_links(%(links)s::jsonb)
