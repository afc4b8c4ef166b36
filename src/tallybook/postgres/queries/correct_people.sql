-- Gives people who are here already the old database's numbers; those left as they were.
select tallybook.correct_people(%(people)s::jsonb)
