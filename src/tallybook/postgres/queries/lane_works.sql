-- A paused lane's probe went through.
select tallybook.lane_works(%(lane)s, %(has_written)s)
