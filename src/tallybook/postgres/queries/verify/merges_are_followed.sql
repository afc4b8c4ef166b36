-- A merged contact leads, without a circle, to one that is not merged, and has nothing left: no credit, no live booking.
with recursive step (id, now_at) as (
    select c.id, c.merged_into from tallybook.contacts c where c.merged_into is not null
    union all
    select s.id, c.merged_into from step s join tallybook.contacts c on c.id = s.now_at where c.merged_into is not null
) cycle now_at set is_cycle using path
select 'contact ' || s.id as object, 'is merged in a circle' as problem
from step s where s.is_cycle group by s.id
union all
select 'contact ' || c.id, 'is merged into ' || c.merged_into || ', which does not exist'
from tallybook.contacts c
where c.merged_into is not null and not exists (select from tallybook.contacts o where o.id = c.merged_into)
union all
select 'contact ' || c.id, format('is merged, and still has %s %s', b.balance, b.credit_type)
from tallybook.contacts c
join tallybook.credit_balances b on b.contact_id = c.id
where c.merged_into is not null and (b.balance <> 0 or b.held <> 0)
union all
select 'contact ' || c.id, 'is merged, and still has the live booking ' || b.id
from tallybook.contacts c
join tallybook.bookings b on b.contact_id = c.id
where c.merged_into is not null and b.status <> 'Cancelled'
