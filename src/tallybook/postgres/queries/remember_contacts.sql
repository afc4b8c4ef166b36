-- Rows for people whose records carry an id of ours that nobody here has.
select tallybook.remember_contacts(%(records)s::jsonb)
