-- Takes up to a hundred records that HubSpot hinted at, all of one type.
select id, object_type, hubspot_id, subscription_type, details
from tallybook.claim_inbox(%(types)s::text[], %(token)s::uuid, %(lease_s)s::numeric, %(limit)s::integer)
