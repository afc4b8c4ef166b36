-- The tables that have rows, as they are written.
select c.oid::regclass::text
from pg_class c
where c.relkind = 'r' and c.relnamespace in ('tallybook'::regnamespace, 'public'::regnamespace)
    and pg_relation_size(c.oid) > 0
