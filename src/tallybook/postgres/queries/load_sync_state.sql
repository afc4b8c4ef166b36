-- What was remembered under a name; no row: nothing.
select value from tallybook.sync_state where name = %(name)s
