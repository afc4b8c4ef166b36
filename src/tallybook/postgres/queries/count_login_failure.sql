-- A failed sign-in counts against the address it came from.
select tallybook.count_login_failure(%(address)s)
