-- Gives leased objects back with no attempt used up.
select tallybook.release_outbox(%(lane)s, %(token)s, %(ids)s::uuid[], %(wait_s)s::numeric)
