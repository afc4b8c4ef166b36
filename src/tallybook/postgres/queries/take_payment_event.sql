-- One event of the payment provider.
select refusal, details, outcome, data, replayed
from tallybook.take_payment_event(%(event)s, %(kind)s, %(payment)s, %(intent)s, %(contact)s, %(pack)s, %(part)s)
