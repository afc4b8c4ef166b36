-- Gives back what one charge or capture took.
select refusal, details, outcome, data, replayed
from tallybook.refund_use(%(entry_id)s, %(actor)s,
    %(credential)s, %(route)s, %(key)s, %(fingerprint)s, %(dry_run)s)
