-- What was sent has arrived: the lane's pause is over.
select tallybook.lane_works(%(lane)s)
