-- HubSpot has made records of these contacts; gives the ids of those that have theirs now.
select tallybook.adopt_contacts(%(token)s, %(rows)s::jsonb)
