-- How many rows were ever inserted, changed or deleted, by table.
select jsonb_object_agg(s.relname, s.n_tup_ins + s.n_tup_upd + s.n_tup_del)
from pg_stat_user_tables s
where s.schemaname = 'tallybook' and s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0
