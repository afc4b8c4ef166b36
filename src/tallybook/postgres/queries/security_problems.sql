-- What is open that should be closed, or closed to the application; no rows: all is well.
select problem from tallybook.security_problems()
