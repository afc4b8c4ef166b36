-- One page of the conflicts, the oldest first.
select tallybook.list_conflicts(%(object_type)s, %(kind)s, %(with_resolved)s, %(page)s, %(limit)s)
