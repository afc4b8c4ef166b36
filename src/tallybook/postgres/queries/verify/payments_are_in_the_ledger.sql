-- A pack that was paid stands in the ledger as it was sold; what refunds and disputes took back is what entries took.
select 'payment ' || p.id as object,
    format('%s %s of pack %s; entry %s gave %s of %s', p.credits, p.credit_type, p.pack, p.entry_id,
           coalesce(e.delta::text, 'none'), coalesce(e.credit_type, 'none')) as problem
from tallybook.payments p
left join tallybook.credit_entries e on e.id = p.entry_id and e.reason = 'purchase'
where e.id is null or e.delta <> p.credits or e.credit_type <> p.credit_type
union all
select 'payment ' || p.id,
    format('refunds and disputes claim %s and miss %s; entries took %s', p.refunded_credits + p.disputed_credits,
           p.missing_credits, t.taken)
from tallybook.payments p
cross join lateral (
    select coalesce(-sum(e.delta), 0) as taken
    from tallybook.payment_events v
    join tallybook.credit_entries e on e.external_event = 'stripe:' || v.id
    where v.payment_id = p.intent
) t
where t.taken <> p.refunded_credits + p.disputed_credits - p.missing_credits
