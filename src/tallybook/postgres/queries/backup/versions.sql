-- The migrations that made this schema.
select version, min_release from tallybook.schema_migrations order by version
