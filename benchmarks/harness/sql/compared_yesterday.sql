-- As if everything had been compared with HubSpot a day ago.
set session_replication_role = replica;
update tallybook.contacts set synced_at = synced_at - interval '1 day';
update tallybook.mock_exams set synced_at = synced_at - interval '1 day';
update tallybook.bookings set synced_at = synced_at - interval '1 day';
reset session_replication_role;
