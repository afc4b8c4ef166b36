-- Tells the planner how large the tables have become.
select tallybook.refresh_statistics()
