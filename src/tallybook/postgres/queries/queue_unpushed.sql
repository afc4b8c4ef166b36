-- Finds what HubSpot has not been told and nobody knows of.
select last_id, looked_at, unpushed
from tallybook.queue_unpushed(%(object_type)s, %(after)s::uuid, %(limit)s::integer, %(repair)s, %(skip)s::text[])
