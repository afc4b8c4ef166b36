-- An attempt failed: later again, or dead; gives the number of the dead.
select tallybook.fail_outbox(%(lane)s, %(token)s, %(rows)s::jsonb, %(attempts)s)
