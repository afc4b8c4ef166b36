-- Records as active up to a hundred sessions whose opening minute has passed; they have been bookable since then.
with due as (
    select e.id from tallybook.mock_exams e
    where e.activation = 'scheduled' and e.opens_at <= clock_timestamp() and e.archived_at is null
    order by e.id limit 100
    for no key update skip locked
), opened as (
    update tallybook.mock_exams e set activation = 'active', updated_at = clock_timestamp()
    from due where e.id = due.id
    returning e.id
), noted as (
    insert into tallybook.audit_log (actor, action, object_type, object_id)
    select 'cron', 'mock_exam.opened', 'mock_exam', id::text from opened
), told as (
    select array_agg(id) as ids, count(*)::integer as opened from opened
)
select t.opened, tallybook.note_changes(array_fill('mock_exam'::text, array[t.opened]), t.ids) from told t
