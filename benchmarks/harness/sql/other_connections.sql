-- Who else is connected: what a session has counted is known when it has ended.
select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
    and backend_type = 'client backend'
