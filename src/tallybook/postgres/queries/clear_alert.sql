-- What was raised under this kind and subject is over.
select tallybook.clear_alert(%(kind)s, %(subject)s)
