-- What a push would do now; nothing is claimed.
select object_type, object_id, hubspot_id, waiting_since, dead, action, properties
from tallybook.preview_push(%(skip)s::jsonb)
