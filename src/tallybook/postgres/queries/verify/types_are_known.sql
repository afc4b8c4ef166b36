-- Credit types, mock types and tokens are those of the catalog's tables, today's or retired.
select 'balance ' || b.contact_id || ' ' || b.credit_type as object, 'there is no such credit type' as problem
from tallybook.credit_balances b
where not exists (select from tallybook.credit_types t where t.name = b.credit_type)
union all
select 'entry ' || e.id, 'there is no credit type ' || e.credit_type
from tallybook.credit_entries e
where not exists (select from tallybook.credit_types t where t.name = e.credit_type)
union all
select 'booking ' || b.id, format('token %s, mock type %s', b.token_used, b.mock_type)
from tallybook.bookings b
where not exists (select from tallybook.mock_types t where t.name = b.mock_type)
    or b.token_used <> 'Admin Override'
    and not exists (select from tallybook.credit_types t where t.token_name = b.token_used)
union all
select 'mock type ' || m.name, 'is paid with ' || p || ', which is no credit type'
from tallybook.mock_types m, unnest(m.pays_with) p
where not exists (select from tallybook.credit_types t where t.name = p)
