-- What is set aside is the sum of the open holds, overdue or not.
select b.contact_id || ' ' || b.credit_type as object,
    format('held %s; open holds of %s', b.held, h.total) as problem
from tallybook.credit_balances b
cross join lateral (
    select coalesce(sum(h.credits), 0) as total from tallybook.credit_holds h
    where h.contact_id = b.contact_id and h.credit_type = b.credit_type and h.closed_at is null
) h
where b.held <> h.total
union all
select 'hold ' || h.id, 'set aside from a balance that does not exist'
from tallybook.credit_holds h
where not exists (select from tallybook.credit_balances b
                  where b.contact_id = h.contact_id and b.credit_type = h.credit_type)
