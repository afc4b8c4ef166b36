-- Alerts to be sent, for one sender at a time.
select kind, subject, state, raised_at, cleared_at, details, attempts, token
from tallybook.claim_alerts(%(limit)s, %(lease_s)s)
