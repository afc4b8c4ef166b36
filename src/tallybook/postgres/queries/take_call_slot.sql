-- One call's place in HubSpot's budget, or how long to wait for it.
select slot, wait_s::float8, day_is_over
from tallybook.take_call_slot(%(kind)s, %(search)s, %(limits)s::integer[], %(windows_s)s::numeric[],
    %(share)s::numeric, %(timeout_s)s::numeric)
