-- How many students there are, and how many have how much of each mirrored credit type.
with student as (
    select c.id from tallybook.contacts c
    where c.merged_into is null and c.student_id is not null and c.archived_at is null
), per_type as (
    select t.name as credit_type, count(*) filter (where b.balance > 0) as contacts,
        coalesce(sum(b.balance), 0)::bigint as credits
    from tallybook.credit_types t
    left join tallybook.credit_balances b
        on b.credit_type = t.name and b.contact_id in (select id from student)
    where t.hubspot_property is not null and t.retired_at is null
    group by t.name
)
select (select count(*) from student) as students,
    (select count(distinct b.contact_id) from tallybook.credit_balances b
     join tallybook.credit_types t on t.name = b.credit_type and t.hubspot_property is not null
     where b.balance > 0 and b.contact_id in (select id from student)) as with_credits,
    (select jsonb_agg(p order by p.credit_type) from per_type p) as per_type
