-- Repeats what the forgotten hour decided about bookings that are here; how many.
select tallybook.repeat_decisions(%(records)s::jsonb)
