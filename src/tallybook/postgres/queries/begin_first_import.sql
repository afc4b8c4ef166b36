-- Remembers when the first import began.
insert into tallybook.sync_state (name, value)
values ('first_import', jsonb_build_object('started_at', clock_timestamp()))
on conflict (name) do nothing
