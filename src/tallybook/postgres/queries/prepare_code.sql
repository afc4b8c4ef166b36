-- Binds a code to a challenge, if the pair is a student.
select refusal, details, outcome, data, replayed
from tallybook.prepare_code(%(challenge)s, %(student_id)s, %(email)s, %(code_hash)s)
