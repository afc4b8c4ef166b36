-- Could these actions be paid now? For display.
select refusal, details, outcome, data, replayed
from tallybook.check_actions(tallybook.find_contact(%(contact)s), %(actions)s)
