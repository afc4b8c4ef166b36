-- Remembers a value under a name.
insert into tallybook.sync_state (name, value) values (%(name)s, %(value)s::jsonb)
on conflict (name) do update set value = excluded.value, updated_at = clock_timestamp()
