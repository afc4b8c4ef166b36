-- Opens a sign-in by mailed code.
select refusal, details, outcome, data, replayed
from tallybook.begin_challenge(%(address)s)
