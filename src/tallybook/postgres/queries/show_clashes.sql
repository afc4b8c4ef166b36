-- Opens a conflict for each booking that came back although another stands against it.
select tallybook.show_clashes(%(hubspot_ids)s)
