-- Grants or corrects one balance.
select refusal, details, outcome, data, replayed
from tallybook.adjust_credits(%(contact_id)s, %(credit_type)s, %(credits)s, %(reason)s, %(actor)s,
    %(credential)s, %(route)s, %(key)s, %(fingerprint)s, %(dry_run)s)
