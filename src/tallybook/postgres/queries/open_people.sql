-- People as the old database has them, with its numbers as opening entries; those who were new.
select tallybook.open_people(%(people)s::jsonb)
