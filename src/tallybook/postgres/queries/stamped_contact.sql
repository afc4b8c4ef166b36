-- A contact that shows a stamp of ours in HubSpot, written not long ago.
select c.hubspot_id, c.crm_stamp from tallybook.contacts c
where c.crm_stamp is not null and c.hubspot_id is not null and c.merged_into is null and c.archived_at is null
    and c.write_no > 0
order by c.crm_modified_at desc nulls last limit 1
