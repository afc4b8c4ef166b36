-- All API keys; what they keep secret is kept nowhere.
select jsonb_build_object('id', k.id, 'name', k.name, 'scopes', to_jsonb(k.scopes),
    'created_at', tallybook.instant(k.created_at), 'expires_at', tallybook.instant(k.expires_at),
    'revoked_at', tallybook.instant(k.revoked_at))
from tallybook.api_keys k order by k.created_at, k.id
