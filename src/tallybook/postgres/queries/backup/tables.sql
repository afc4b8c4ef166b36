-- The tables that are kept, with the columns that are written: not those that a crash may empty, nor computed ones.
select c.relname, array_agg(a.attname order by a.attnum)
from pg_catalog.pg_class c
join pg_catalog.pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'tallybook'::regnamespace and c.relkind in ('r', 'p') and c.relpersistence = 'p'
    and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
group by c.relname
order by c.relname
