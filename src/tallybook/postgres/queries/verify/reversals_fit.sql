-- A reversal takes back one entry, once, of the same credit type and booking, with the opposite sign and no more.
select 'entry ' || r.id as object,
    format('%s of %s reverses entry %s: %s of %s', r.delta, r.credit_type, r.reverses_entry_id,
           coalesce(s.delta::text, 'none'), coalesce(s.credit_type, 'none')) as problem
from tallybook.credit_entries r
left join tallybook.credit_entries s on s.id = r.reverses_entry_id
where r.reverses_entry_id is not null
    and (s.id is null or s.id >= r.id or s.credit_type <> r.credit_type or sign(s.delta) = sign(r.delta)
         or abs(r.delta) > abs(s.delta) or s.booking_id is distinct from r.booking_id
         or exists (select from tallybook.credit_entries o
                    where o.reverses_entry_id = r.reverses_entry_id and o.id < r.id))
