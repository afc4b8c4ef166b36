-- Merges what HubSpot says about up to a hundred mock exams.
select hubspot_id, object_id, outcome, note, need from tallybook.absorb_mock_exams(%(records)s::jsonb, %(importing)s)
