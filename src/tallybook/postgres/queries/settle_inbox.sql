-- Says what became of the hints of a lease.
select tallybook.settle_inbox(%(token)s::uuid, %(done)s::bigint[], %(left)s::jsonb, %(wait_s)s::numeric,
    %(was_read)s)
