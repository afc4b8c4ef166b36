-- Gives a dead letter up, with a reason.
select refusal, details, outcome, data, replayed
from tallybook.discard_dead(%(type)s, %(id)s, %(reason)s, %(actor)s)
