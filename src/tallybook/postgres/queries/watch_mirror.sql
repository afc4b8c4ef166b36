-- Raises and clears the alerts that follow from how the mirror stands.
select tallybook.watch_mirror(%(limits)s::jsonb)
