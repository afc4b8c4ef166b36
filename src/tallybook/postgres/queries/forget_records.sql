-- Forgets up to so many records of the old portal; how many, 0 at the end.
select tallybook.forget_records(%(limit)s)
