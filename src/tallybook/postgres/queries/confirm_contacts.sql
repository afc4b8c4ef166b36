-- HubSpot has taken what was sent about these contacts; gives the ids settled.
select tallybook.confirm_contacts(%(token)s, %(rows)s::jsonb, %(skip)s::text[])
