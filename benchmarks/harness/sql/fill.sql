-- Contacts, balances and entries as an import would leave them, only faster: triggers do not run in this
-- session, so what they would have computed is written as it must be. :contacts is how many, each with 50
-- credits of every mirrored type.
set session_replication_role = replica;

insert into tallybook.contacts (hubspot_id, email, student_id, firstname, lastname)
select (5000000 + i)::text, 's' || i || '@example.com', (3000000 + i)::text, 'Ada', 'Student'
from generate_series(0, :contacts - 1) i;

insert into tallybook.credit_balances (contact_id, credit_type, balance, crm_base, version)
select c.id, t.name, 50, 50, 1
from (select id from tallybook.contacts order by id) c
cross join tallybook.credit_types t
where t.hubspot_property is not null;

insert into tallybook.credit_entries (contact_id, credit_type, seq, delta, balance_after, reason, actor)
select b.contact_id, b.credit_type, 1, 50, 50, 'import', 'benchmark'
from tallybook.credit_balances b;

reset session_replication_role;

insert into tallybook.mock_exams (mock_type, mock_set, exam_on, start_time, end_time, time_zone,
    starts_at, ends_at, location, capacity)
select 'Situational Judgment', 'A', d, '09:00', '12:00', 'America/Toronto',
    (d + time '09:00') at time zone 'America/Toronto', (d + time '12:00') at time zone 'America/Toronto',
    'Mississauga', 1000000
from (select current_date + 20 + i as d from generate_series(1, 200) i) days;

-- Sessions by number, for scripts that pick one.
create table public.sessions (n integer primary key, id uuid not null);
insert into public.sessions select row_number() over (order by starts_at) - 1, id from tallybook.mock_exams;
grant select on public.sessions to tallybook_app;
