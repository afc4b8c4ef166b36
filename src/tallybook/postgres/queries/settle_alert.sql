-- How sending an alert went.
select tallybook.settle_alert(%(kind)s, %(subject)s, %(state)s, %(raised_at)s, %(token)s, %(error)s, %(again_s)s)
