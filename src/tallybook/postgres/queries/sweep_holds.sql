-- Gives back the overdue holds of some contacts; how many it looked at.
select tallybook.sweep_holds(%(limit)s)
