-- Captures or releases a hold.
select refusal, details, outcome, data, replayed
from tallybook.close_hold(%(hold_id)s, %(capture)s, %(credits)s, %(metadata)s, %(actor)s,
    %(credential)s, %(route)s, %(key)s, %(fingerprint)s, %(dry_run)s)
