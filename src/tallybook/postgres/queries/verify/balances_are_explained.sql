-- A balance is the sum of its entries and what the newest of them says, and counts them.
select b.contact_id || ' ' || b.credit_type as object,
    format('balance %s, version %s; %s entries of sum %s, the newest with seq %s and balance_after %s',
           b.balance, b.version, e.n, e.total, e.newest, coalesce(l.balance_after, 0)) as problem
from (
    select b.contact_id, b.credit_type, b.balance, b.version from tallybook.credit_balances b
) b
cross join lateral (
    select count(*) as n, coalesce(sum(e.delta), 0) as total, coalesce(max(e.seq), 0) as newest
    from tallybook.credit_entries e where e.contact_id = b.contact_id and e.credit_type = b.credit_type
) e
left join tallybook.credit_entries l
    on l.contact_id = b.contact_id and l.credit_type = b.credit_type and l.seq = e.newest
where b.balance <> e.total or b.balance <> coalesce(l.balance_after, 0) or b.version <> e.newest
union all
select e.contact_id || ' ' || e.credit_type, format('%s entries without a balance', count(*))
from tallybook.credit_entries e
where not exists (select from tallybook.credit_balances b
                  where b.contact_id = e.contact_id and b.credit_type = e.credit_type)
group by e.contact_id, e.credit_type
