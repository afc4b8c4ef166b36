-- How many changes and hints are on their way; what waits for a person is none of them.
select (select count(*) from tallybook.outbox o where o.dead_at is null)
    + (select count(*) from tallybook.inbox i where i.dead_at is null)
