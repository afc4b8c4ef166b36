-- What HubSpot should show of these mock exams, whether they are settled, and of which version that is.
select e.id, e.hubspot_id,
    not exists (select from tallybook.outbox o where o.object_type = 'mock_exam' and o.object_id = e.id)
        and not exists (select from tallybook.inbox i where i.object_type = 'mock_exam' and i.hubspot_id = e.hubspot_id)
        and not exists (select from tallybook.sync_conflicts x
                        where x.object_type = 'mock_exam' and x.object_id = e.id and x.resolved_at is null),
    e.xmin::text, false, tallybook.mock_exam_mirror(e), '{}'::jsonb
from tallybook.mock_exams e
where e.id = any (%(ids)s) and e.archived_at is null
