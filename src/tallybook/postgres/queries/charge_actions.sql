-- Takes the credits of some actions, all or none.
select refusal, details, outcome, data, replayed
from tallybook.charge_actions(tallybook.find_contact(%(contact)s), %(actions)s, %(metadata)s, %(actor)s,
    %(credential)s, %(route)s, %(key)s, %(fingerprint)s, %(dry_run)s)
