-- Signs in with a mailed code.
select refusal, details, outcome, data, replayed
from tallybook.redeem_code(%(challenge)s, %(code_hash)s, %(address)s)
