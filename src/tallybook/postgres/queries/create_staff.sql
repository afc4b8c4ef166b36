-- Stores a staff account, or gives an existing one a new role and password; both are in the audit log.
with account as (
    insert into tallybook.staff as s (email, name, role, password_hash)
    values (%(email)s, %(name)s, %(role)s, %(password_hash)s)
    on conflict on constraint staff_email_key do update
        set name = coalesce(excluded.name, s.name), role = excluded.role, password_hash = excluded.password_hash,
            disabled_at = null, session_epoch = s.session_epoch + 1
    returning id, role, xmax = 0 as is_new
)
insert into tallybook.audit_log (actor, action, object_type, object_id, changes)
select %(actor)s, case when is_new then 'staff.created' else 'staff.changed' end, 'staff', id::text,
    jsonb_build_object('role', role)
from account
returning object_id, action = 'staff.created'
