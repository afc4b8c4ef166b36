-- HubSpot has made records of these contacts; gives the ids of those that have theirs now.
select tallybook.link_contacts(%(token)s, %(rows)s::jsonb)
