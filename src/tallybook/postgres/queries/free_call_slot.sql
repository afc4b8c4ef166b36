-- The answer came: the slot frees itself one window from now.
select tallybook.free_call_slot(%(slot)s)
