-- Forgets what no search will show again.
delete from tallybook.polled_records where object_type = %(object_type)s and modified_at < %(before)s
