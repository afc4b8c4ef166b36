-- What is stored about an API key.
select id, name, secret_hash, scopes, expires_at, revoked_at from tallybook.api_keys where id = %(id)s
