-- How far HubSpot is behind: changes that wait, the age of the oldest, dead letters, conflicts nobody has resolved.
select (select count(*) from tallybook.outbox o where o.dead_at is null),
    (select coalesce(extract(epoch from clock_timestamp() - min(o.dirty_since)), 0)::float8
     from tallybook.outbox o where o.dead_at is null),
    (select count(*) from tallybook.outbox o where o.dead_at is not null),
    (select count(*) from tallybook.sync_conflicts c where c.resolved_at is null)
