-- The next mock exams that HubSpot should show, in the order of their ids.
select e.id from tallybook.mock_exams e where e.id > %(after)s and e.archived_at is null order by e.id limit %(limit)s
