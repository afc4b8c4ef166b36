-- Asks for what a search has found and is news; how many that were.
select tallybook.note_polled(%(object_type)s, %(hits)s::jsonb)
