-- :contacts contacts with 50,000 credits for metered actions, written as an import would leave them; one payer with
-- credits for exactly 1,000 uploads; and contacts with 10 and with :entries entries.
set session_replication_role = replica;

insert into tallybook.contacts (id, email)
select md5('metered' || i)::uuid, 'm' || i || '@example.com' from generate_series(0, :contacts - 1) i;

insert into tallybook.credit_balances (contact_id, credit_type, balance, version)
select id, 'credits', 50000, 1 from tallybook.contacts;

insert into tallybook.credit_entries (contact_id, credit_type, seq, delta, balance_after, reason, actor)
select contact_id, credit_type, 1, 50000, 50000, 'grant', 'benchmark' from tallybook.credit_balances;

create table public.payer (id uuid not null);
grant select on public.payer to tallybook_app;
insert into public.payer values (gen_random_uuid());
insert into tallybook.contacts (id, email) select id, 'payer@example.com' from public.payer;
insert into tallybook.credit_balances (contact_id, credit_type, balance, version)
select id, 'credits', 2001, 1 from public.payer;
insert into tallybook.credit_entries (contact_id, credit_type, seq, delta, balance_after, reason, actor)
select id, 'credits', 1, 2001, 2001, 'grant', 'benchmark' from public.payer;

-- An upload charged to the payer; who waited too long for the lock is counted, as the API would answer 503 LOCK_TIMEOUT.
create sequence public.lock_timeouts minvalue 0 start 0;
select nextval('public.lock_timeouts');
create function public.charge_payer()
returns text
language plpgsql volatile
as $$
begin
    return (select a.refusal
            from public.payer p, tallybook.charge_actions(p.id, '[{"action": "audio_upload"}]', null, 'benchmark',
                                                          'benchmark', null, null, null, false) a);
exception when lock_not_available then
    perform nextval('public.lock_timeouts');
    return 'LOCK_TIMEOUT';
end
$$;

insert into tallybook.contacts (id, email)
values (md5('short')::uuid, 'short@example.com'), (md5('long')::uuid, 'long@example.com');
insert into tallybook.credit_balances (contact_id, credit_type, balance, version)
values (md5('short')::uuid, 'credits', 10, 10), (md5('long')::uuid, 'credits', :entries, :entries);
insert into tallybook.credit_entries (contact_id, credit_type, seq, delta, balance_after, reason, actor)
select md5('short')::uuid, 'credits', i, 1, i, 'grant', 'benchmark' from generate_series(1, 10) i
union all
select md5('long')::uuid, 'credits', i, 1, i, 'grant', 'benchmark' from generate_series(1, :entries) i;

reset session_replication_role;
