-- How much was looked at.
select (select count(*) from tallybook.contacts) as contacts,
    (select count(*) from tallybook.credit_balances) as balances,
    (select count(*) from tallybook.credit_entries) as entries,
    (select count(*) from tallybook.credit_holds) as holds,
    (select count(*) from tallybook.mock_exams) as mock_exams,
    (select count(*) from tallybook.bookings) as bookings,
    (select count(*) from tallybook.idempotency_keys) as idempotency_keys,
    (select count(*) from tallybook.outbox) as outbox
