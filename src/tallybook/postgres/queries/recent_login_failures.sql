-- How many sign-ins from this address failed within the last minute.
select tallybook.calls_in_window('login-failure:' || %(address)s)::float8
