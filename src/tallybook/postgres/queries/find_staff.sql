-- What is stored about a staff account that may sign in.
select id, role, password_hash, session_epoch, email, name from tallybook.staff
where email = %(email)s and disabled_at is null and password_hash is not null
