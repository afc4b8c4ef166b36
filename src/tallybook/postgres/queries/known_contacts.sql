-- Which of these HubSpot ids are those of contacts of ours.
select hubspot_id from tallybook.contacts
where hubspot_id = any (%(hubspot_ids)s::text[]) and merged_into is null and erased_at is null
order by hubspot_id
