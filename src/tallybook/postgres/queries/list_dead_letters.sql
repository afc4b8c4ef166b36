-- One page of what could not be written to HubSpot or read from it, the oldest first.
select tallybook.list_dead_letters(%(type)s, %(page)s, %(limit)s)
