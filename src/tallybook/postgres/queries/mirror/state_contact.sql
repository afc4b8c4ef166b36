-- What HubSpot should show of these contacts, whether they are settled, and of which version that is. A balance that
-- was never met is left out, and so is an e-mail that somebody else has by now: neither is ever sent.
select c.id, c.hubspot_id,
    not c.crm_unread
        and not exists (select from tallybook.outbox o where o.object_type = 'contact' and o.object_id = c.id)
        and not exists (select from tallybook.inbox i where i.object_type = 'contact' and i.hubspot_id = c.hubspot_id)
        and not exists (select from tallybook.sync_conflicts x
                        where x.object_type = 'contact' and x.object_id = c.id and x.resolved_at is null),
    concat_ws(':', c.xmin, (select string_agg(b.xmin::text, ',' order by b.credit_type)
                            from tallybook.credit_balances b where b.contact_id = c.id)),
    c.archived_at is not null,
    case when c.email is null then tallybook.contact_mirror(c) - 'email' else tallybook.contact_mirror(c) end
        || (select coalesce(jsonb_object_agg(t.hubspot_property, b.balance::text), '{}')
            from tallybook.credit_balances b
            join tallybook.credit_types t on t.name = b.credit_type
            where b.contact_id = c.id and t.hubspot_property is not null and t.retired_at is null
                and b.crm_base is not null),
    '{}'::jsonb
from tallybook.contacts c
where c.id = any (%(ids)s) and c.merged_into is null and c.erased_at is null
