-- Goes on with a run; no row: the lease was lost.
update tallybook.job_runs set leased_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
where job = %(job)s and lease_token = %(token)s and leased_until > clock_timestamp()
returning job
