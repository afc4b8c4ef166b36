-- What is to be sent about leased mock exams, decided and marked as sent now.
select tallybook.prepare_mock_exams(%(token)s, %(ids)s::uuid[], %(skip)s::text[])
