-- Signs in with the pair alone.
select refusal, details, outcome, data, replayed
from tallybook.sign_in(%(student_id)s, %(email)s, %(address)s)
