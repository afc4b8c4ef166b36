-- Remembers how far this portal's histories put stamp and number of one request apart; gives what was known before. No
-- row: this database is not bound to that portal.
with bound as materialized (
    select s.name, (s.value ->> 'stamps_apart_ms')::integer as before from tallybook.sync_state s
    where s.name = 'portal' and (s.value ->> 'portal_id')::bigint = %(portal_id)s
    for update
)
update tallybook.sync_state s
set value = s.value || jsonb_build_object('stamps_apart_ms', greatest(b.before, %(apart_ms)s)),
    updated_at = clock_timestamp()
from bound b
where s.name = b.name
returning b.before
