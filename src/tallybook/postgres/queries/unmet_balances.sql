-- Of whom a balance has to be read before anything is written, among those kept in these properties.
select distinct b.contact_id, t.hubspot_property
from tallybook.credit_balances b
join tallybook.credit_types t on t.name = b.credit_type
where b.contact_id = any (%(ids)s::uuid[]) and t.hubspot_property = any (%(properties)s::text[])
    and t.retired_at is null and b.crm_base is null and not b.crm_unreadable
