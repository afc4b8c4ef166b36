-- Back to what fill.sql left: no bookings, every balance at its first entry.
set session_replication_role = replica;
truncate tallybook.bookings, tallybook.outbox, tallybook.audit_log, tallybook.audit_details,
    tallybook.idempotency_keys, tallybook.credit_holds, tallybook.credit_entries;
update tallybook.mock_exams set total_bookings = 0 where total_bookings <> 0;
update tallybook.credit_balances set balance = 50, version = 1 where version <> 1;
insert into tallybook.credit_entries (contact_id, credit_type, seq, delta, balance_after, reason, actor)
select b.contact_id, b.credit_type, 1, 50, 50, 'import', 'benchmark'
from tallybook.credit_balances b;
reset session_replication_role;
