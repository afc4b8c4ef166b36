-- Notes that these mock exams are the same on both sides; gives the HubSpot ids of those that are.
select tallybook.confirm_equal_mock_exams(%(records)s::jsonb)
