-- Stores a new API key and says so in the audit log.
with created as (
    insert into tallybook.api_keys (id, name, secret_hash, scopes, expires_at)
    values (%(id)s, %(name)s, %(secret_hash)s, %(scopes)s, %(expires_at)s)
    returning id, scopes
)
insert into tallybook.audit_log (actor, action, object_type, object_id, changes)
select %(actor)s, 'key.created', 'api_key', id, jsonb_build_object('scopes', scopes) from created
returning id
