-- Leases what waits in a lane; nothing while pushing is held or the lane paused.
select claimed, probing, wait_s::float8
from tallybook.claim_outbox(%(lane)s, %(token)s, %(limit)s, %(linger_s)s::numeric, %(lease_s)s::numeric)
