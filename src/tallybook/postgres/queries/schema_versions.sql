-- Which migrations this database has, and the oldest release that runs on them.
select version, min_release from tallybook.schema_migrations order by version
