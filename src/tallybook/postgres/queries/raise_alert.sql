-- Tells people that something is wrong, once until it is cleared.
select tallybook.raise_alert(%(kind)s, %(subject)s, %(details)s::jsonb)
