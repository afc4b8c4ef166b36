-- Merges what HubSpot says about up to a hundred contacts.
select hubspot_id, contact_id, outcome from tallybook.absorb_contacts(%(contacts)s::jsonb, %(reason)s)
