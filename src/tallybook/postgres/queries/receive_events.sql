-- Stores hints, each event once and none of our own making; how many were stored, and how many were our own.
with event as materialized (
    select e.*, coalesce(e.source_id = (select s.value ->> 'source_id' from tallybook.sync_state s
                                        where s.name = 'own_source'), false) as is_own
    from jsonb_to_recordset(%(events)s::jsonb) as e (object_type text, hubspot_id text, subscription_type text,
        property_name text, event_id text, occurred_at timestamptz, details jsonb, source_id text)
), stored as (
    insert into tallybook.inbox
        (object_type, hubspot_id, subscription_type, property_name, event_id, occurred_at, details)
    select e.object_type, e.hubspot_id, e.subscription_type, e.property_name, e.event_id, e.occurred_at, e.details
    from event e where not e.is_own
    order by e.subscription_type, e.object_type, e.hubspot_id, e.occurred_at, e.property_name, e.event_id
    on conflict on constraint inbox_event_key do nothing
    returning 1
)
select (select count(*) from stored)::integer, (select count(*) from event where is_own)::integer
