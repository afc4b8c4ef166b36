-- Forgets a person.
select refusal, details, outcome, data, replayed
from tallybook.erase_contact(%(contact_id)s, %(reason)s, %(actor)s)
