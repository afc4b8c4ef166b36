-- Sets the credits of some actions aside, all or none.
select refusal, details, outcome, data, replayed
from tallybook.hold_credits(tallybook.find_contact(%(contact)s), %(actions)s, %(expires_in_s)s,
    %(metadata)s, %(actor)s,
    %(credential)s, %(route)s, %(key)s, %(fingerprint)s, %(dry_run)s)
