-- What this database takes itself for: its own name, its portal (NULL: none yet), whether a rebind is unfinished.
select tallybook.database_id(), (p.value ->> 'portal_id')::bigint, coalesce((h.value ->> 'forgetting')::boolean, false)
from (values (1)) as one (row)
left join tallybook.sync_state p on p.name = 'portal'
left join tallybook.sync_state h on h.name = 'hold'
