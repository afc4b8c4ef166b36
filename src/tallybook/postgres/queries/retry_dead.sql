-- Tries a dead letter again, or all.
select refusal, details, outcome, data, replayed from tallybook.retry_dead(%(type)s, %(id)s)
