-- Binds this database to the portal the token opens; pushing is on hold from here on.
select tallybook.begin_rebind(%(portal_id)s, %(time_zone)s, %(epoch)s, %(actor)s)
