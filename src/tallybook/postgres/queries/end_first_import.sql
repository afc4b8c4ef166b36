-- Remembers when the first import was complete.
update tallybook.sync_state
set value = value || jsonb_build_object('completed_at', clock_timestamp()), updated_at = clock_timestamp()
where name = 'first_import' and not value ? 'completed_at'
