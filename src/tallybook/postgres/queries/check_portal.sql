-- Compares portal and marker with what this database knows; binds them at first contact.
select problem, portal_id, database_id, hold, raise_epoch
from tallybook.check_portal(%(portal_id)s, %(time_zone)s, %(database_id)s, %(epoch)s)
