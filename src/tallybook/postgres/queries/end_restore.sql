-- Everything was compared: pushing goes on.
select tallybook.end_restore(%(epoch)s)
