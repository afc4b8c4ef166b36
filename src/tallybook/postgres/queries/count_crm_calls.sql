-- Adds a process's calls to HubSpot to those of all.
select tallybook.count_crm_calls(%(counts)s::jsonb)
