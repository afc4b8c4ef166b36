-- Links people both sides know; our numbers and texts stay and are pushed where HubSpot's differ.
select tallybook.keep_ours(%(records)s::jsonb)
