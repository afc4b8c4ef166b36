-- How much HubSpot has not been told yet, whatever it waits for; what was given up does not wait.
select count(*)::integer from tallybook.outbox where dead_at is null
