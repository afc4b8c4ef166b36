-- Revokes an API key; no row: there is none with this id.
with revoked as (
    update tallybook.api_keys set revoked_at = coalesce(revoked_at, clock_timestamp())
    where id = %(id)s returning id
)
insert into tallybook.audit_log (actor, action, object_type, object_id)
select %(actor)s, 'key.revoked', 'api_key', id from revoked
returning id
