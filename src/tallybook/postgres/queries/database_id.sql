-- This database's own name, made when it is first asked.
select tallybook.database_id()
