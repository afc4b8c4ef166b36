-- How far this portal's histories put stamp and number of one request apart, in milliseconds; NULL: not at all, so far.
select (value ->> 'stamps_apart_ms')::integer from tallybook.sync_state where name = 'portal'
