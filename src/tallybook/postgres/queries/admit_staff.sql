-- Whether a staff account may go on with a token of this epoch, as what, and whether it calls too often.
select s.role, tallybook.allow_call('staff:' || s.id, %(limit_per_min)s::integer)
from tallybook.staff s
where s.id = %(staff_id)s and s.session_epoch = %(epoch)s and s.disabled_at is null
