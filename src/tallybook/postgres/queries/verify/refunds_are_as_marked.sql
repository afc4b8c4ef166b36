-- A cancelled booking marked as refunded has its credit back, one marked as not refunded has not; no live one is marked.
select 'booking ' || b.id as object,
    format('%s, refunded: %s; %s credits spent and not given back, %s refunds', b.status,
           coalesce(b.refunded::text, 'unknown'), s.credits, s.refunds) as problem
from tallybook.bookings b
cross join lateral (
    select coalesce(sum(-s.delta) filter (where r.id is null), 0) as credits, count(r.id) as refunds
    from tallybook.credit_entries s
    left join tallybook.credit_entries r on r.reverses_entry_id = s.id
    where s.booking_id = b.id and s.delta < 0 and s.reverses_entry_id is null
) s
where case
    when b.status <> 'Cancelled' then b.refunded is not null
    when b.refunded then s.credits <> 0 or s.refunds = 0
    when not b.refunded and b.token_used <> 'Admin Override' then s.credits = 0
    -- Unknown: cancelled before it was imported.
    else s.credits <> 0 end
