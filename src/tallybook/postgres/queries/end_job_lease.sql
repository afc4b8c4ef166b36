-- Ends a run and says how it went.
update tallybook.job_runs
set lease_token = null, leased_until = null, finished_at = clock_timestamp(), counts = %(counts)s::jsonb,
    last_error = %(error)s
where job = %(job)s and lease_token = %(token)s
