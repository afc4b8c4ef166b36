-- Stops pulling until a record that is tried now and then can be read.
select tallybook.pause_pull(%(reason)s, %(words)s, %(probe_s)s::numeric)
