-- No balance is below zero, also none that was, and no more is set aside than there is.
select b.contact_id || ' ' || b.credit_type as object,
    format('balance %s, held %s', b.balance, b.held) as problem
from tallybook.credit_balances b
where b.balance < 0 or b.held < 0 or b.held > b.balance
union all
select 'entry ' || e.id, format('balance_after %s', e.balance_after)
from tallybook.credit_entries e
where e.balance_after < 0
