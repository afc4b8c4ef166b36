-- The sequences of the schema.
select c.relname from pg_catalog.pg_class c
where c.relnamespace = 'tallybook'::regnamespace and c.relkind = 'S'
order by c.relname
