-- Merges what HubSpot says about up to a hundred bookings.
select hubspot_id, object_id, outcome, note, need from tallybook.absorb_bookings(%(records)s::jsonb, %(importing)s)
