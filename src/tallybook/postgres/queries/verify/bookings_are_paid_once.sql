-- A live booking is paid with one credit unless it is an Admin Override; a cancelled one never with more than one.
select 'booking ' || b.id as object,
    format('%s, paid with %s: %s credits spent and not given back', b.status, b.token_used, s.credits) as problem
from tallybook.bookings b
cross join lateral (
    select coalesce(sum(-s.delta), 0) as credits
    from tallybook.credit_entries s
    where s.booking_id = b.id and s.delta < 0 and s.reverses_entry_id is null
        and not exists (select from tallybook.credit_entries r where r.reverses_entry_id = s.id)
) s
where case
    when b.token_used = 'Admin Override' then s.credits <> 0
    when b.status <> 'Cancelled' then s.credits <> 1
    else s.credits not in (0, 1) end
union all
select 'entry ' || e.id, 'its booking does not exist'
from tallybook.credit_entries e
where e.booking_id is not null and not exists (select from tallybook.bookings b where b.id = e.booking_id)
