-- No contact is stored any more: everything that is about one goes.
set session_replication_role = replica;
truncate tallybook.bookings, tallybook.outbox, tallybook.audit_log, tallybook.audit_details,
    tallybook.idempotency_keys, tallybook.credit_holds, tallybook.credit_entries, tallybook.credit_balances,
    tallybook.contact_aliases, tallybook.login_challenges, tallybook.sync_state, tallybook.credit_uses,
    tallybook.hold_uses, tallybook.payments, tallybook.contacts;
update tallybook.mock_exams set total_bookings = 0 where total_bookings <> 0;
reset session_replication_role;
