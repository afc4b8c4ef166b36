-- The entries of a balance are numbered 1, 2, 3 ...
select 'entry ' || e.id as object, format('seq %s follows %s', e.seq, e.before) as problem
from (
    select e.id, e.seq, lag(e.seq, 1, 0) over (partition by e.contact_id, e.credit_type order by e.seq) as before
    from tallybook.credit_entries e
) e
where e.seq <> e.before + 1
