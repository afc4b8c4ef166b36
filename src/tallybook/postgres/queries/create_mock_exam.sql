-- Stores a new session with its prerequisites.
select refusal, details, outcome, data, replayed
from tallybook.create_mock_exam(%(session)s::jsonb, %(prerequisites)s::text[], %(actor)s)
