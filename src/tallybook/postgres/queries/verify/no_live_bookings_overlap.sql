-- No contact has two live bookings that share an instant; back to back they do not.
select 'booking ' || b.id as object,
    format('starts at %s, before an earlier one of the contact ends at %s', b.starts_at, b.until) as problem
from (
    select b.id, b.starts_at, max(b.ends_at) over (
        partition by b.contact_id order by b.starts_at, b.ends_at, b.id
        rows between unbounded preceding and 1 preceding) as until
    from tallybook.bookings b
    where b.status <> 'Cancelled' and not b.grandfathered
) b
where b.until > b.starts_at
