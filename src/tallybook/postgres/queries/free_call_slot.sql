-- A call's answer has come, and perhaps said how many calls the day has left.
select tallybook.free_call_slot(%(slot)s::bigint, %(daily_limit)s::integer, %(daily_remaining)s::integer)
