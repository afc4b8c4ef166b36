-- Settles a conflict as a person decided.
select refusal, details, outcome, data, replayed
from tallybook.resolve_conflict(%(id)s, %(choice)s, %(value)s, %(actor)s, %(reason)s)
