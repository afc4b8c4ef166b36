-- Finds a person by e-mail, or creates them with the welcome credits.
select refusal, details, outcome, data, replayed
from tallybook.create_contact(%(email)s, %(firstname)s, %(lastname)s, %(external_id)s, %(actor)s, %(dry_run)s)
