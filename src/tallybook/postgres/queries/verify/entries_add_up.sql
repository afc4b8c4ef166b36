-- Each entry says the balance after it: the one before, and its own change.
select 'entry ' || e.id as object,
    format('%s and %s is not %s', e.before, e.delta, e.balance_after) as problem
from (
    select e.id, e.delta, e.balance_after,
        lag(e.balance_after, 1, 0) over (partition by e.contact_id, e.credit_type order by e.seq) as before
    from tallybook.credit_entries e
) e
where e.balance_after <> e.before + e.delta or e.delta = 0
