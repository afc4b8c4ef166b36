-- What an idempotency key's answer speaks of exists: the booking, the hold, the entry, the contact.
select format('key %s of %s for %s', k.key, k.credential, k.route) as object,
    format('its answer speaks of %s %s, which does not exist', a.kind, a.id) as problem
from tallybook.idempotency_keys k
cross join lateral (
    select 'contact' as kind, k.contact_id::text as id
    union all
    select 'booking or hold', k.data ->> 'id' where k.data ? 'id'
    union all
    select 'entry', k.data ->> 'entry_id' where k.data ? 'entry_id'
    union all
    select 'booking or hold', r.value -> 'data' ->> 'id'
    from jsonb_array_elements(case jsonb_typeof(k.data -> 'results') when 'array' then k.data -> 'results'
                                                                     else '[]' end) r (value)
    where r.value -> 'data' ? 'id'
) a
where not case a.kind
    when 'contact' then exists (select from tallybook.contacts c where c.id = tallybook.uuid_or_null(a.id))
    when 'entry' then exists (select from tallybook.credit_entries e where e.id::text = a.id)
    else exists (select from tallybook.bookings b where b.id = tallybook.uuid_or_null(a.id))
        or exists (select from tallybook.credit_holds h where tallybook.uuid_or_null(a.id) in (h.id, h.group_id)) end
