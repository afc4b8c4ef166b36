-- Begins a run of a job, unless another run holds its lease.
insert into tallybook.job_runs as j (job, lease_token, leased_until, started_at)
values (%(job)s, %(token)s, clock_timestamp() + make_interval(secs => %(lease_s)s), clock_timestamp())
on conflict on constraint job_runs_pkey do update
    set lease_token = excluded.lease_token, leased_until = excluded.leased_until, started_at = excluded.started_at,
        finished_at = null, last_error = null
    where j.leased_until is null or j.leased_until <= clock_timestamp()
returning job
