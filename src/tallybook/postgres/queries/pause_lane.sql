-- Stops a lane for a while, longer with each failure in a row; gives when it probes.
select tallybook.pause_lane(%(lane)s, %(reason)s, %(words)s, %(wait_s)s::numeric, %(most_s)s::numeric)
