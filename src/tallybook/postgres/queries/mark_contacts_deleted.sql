-- HubSpot has these records no more.
select tallybook.mark_contacts_deleted(%(hubspot_ids)s::text[])
