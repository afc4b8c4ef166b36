-- The figures of the whole.
with student as (
    select c.id from tallybook.contacts c
    where c.merged_into is null and c.archived_at is null and c.student_id is not null
), balance as (
    select b.credit_type, b.balance, b.held, b.contact_id
    from tallybook.credit_balances b join student s on s.id = b.contact_id
), credits as (
    select t.name as credit_type, count(*) filter (where b.balance > 0) as contacts,
        coalesce(sum(b.balance), 0) as balance, coalesce(sum(b.held), 0) as held
    from tallybook.credit_types t left join balance b on b.credit_type = t.name
    where t.retired_at is null
    group by t.name
), exams as (
    select t.name as mock_type,
        count(e.id) filter (where e.starts_at > now() and e.archived_at is null) as upcoming,
        coalesce(sum(e.capacity) filter (where e.starts_at > now() and e.archived_at is null), 0) as seats,
        coalesce(sum(e.total_bookings) filter (where e.starts_at > now() and e.archived_at is null), 0) as booked,
        count(e.id) filter (where e.starts_at <= now() and e.archived_at is null) as past
    from tallybook.mock_types t left join tallybook.mock_exams e on e.mock_type = t.name
    group by t.name
)
select jsonb_build_object(
    'contacts', (select count(*) from tallybook.contacts c where c.merged_into is null),
    'students', (select count(*) from student),
    'with_any_credits', (select count(distinct b.contact_id) from balance b where b.balance > 0),
    'bookings', (select coalesce(jsonb_object_agg(b.status, b.n), '{}')
                 from (select b.status, count(*) as n from tallybook.bookings b group by b.status) b),
    'ledger_entries', (select count(*) from tallybook.credit_entries),
    'waiting_for_hubspot', (select coalesce(jsonb_object_agg(o.object_type, o.n), '{}')
                            from (select o.object_type, count(*) as n from tallybook.outbox o group by 1) o),
    'open_conflicts', (select count(*) from tallybook.sync_conflicts c where c.resolved_at is null),
    'credits', (select coalesce(jsonb_agg(to_jsonb(c) order by c.credit_type), '[]') from credits c),
    'mock_exams', (select coalesce(jsonb_agg(to_jsonb(e) order by e.mock_type), '[]') from exams e))
