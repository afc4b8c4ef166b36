-- Lets a paused lane go on.
select refusal, details, outcome, data, replayed from tallybook.resume_lane(%(lane)s, %(actor)s)
