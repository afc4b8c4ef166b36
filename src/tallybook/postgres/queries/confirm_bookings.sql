-- HubSpot has taken what was sent about these bookings; gives the ids settled.
select tallybook.confirm_bookings(%(token)s, %(rows)s::jsonb, %(skip)s::text[])
