-- All balances of one contact, for another program.
select refusal, details, outcome, data, replayed
from tallybook.show_contact_credits(%(contact_id)s)
