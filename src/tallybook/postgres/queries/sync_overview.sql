-- Everything about the mirror at this moment.
select tallybook.sync_overview()
