-- All staff accounts.
select jsonb_build_object('id', id, 'email', email, 'name', name, 'role', role,
    'disabled_at', tallybook.instant(disabled_at), 'created_at', tallybook.instant(created_at))
from tallybook.staff order by email
