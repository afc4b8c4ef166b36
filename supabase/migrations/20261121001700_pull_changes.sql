-- Hints from HubSpot: received, claimed by lease, followed up; what polling has asked for already; a call budget that
-- always owes pull a call a second and keeps a tenth of the day for people who wait.

select tallybook.begin_migration('20261121001700', 'pull_changes', '0.1.0');

-- What made a whole batch fail, perhaps: it is read by itself from then on.
alter table tallybook.inbox add column comes_alone boolean not null default false;

drop index tallybook.inbox_due_idx;
-- A leased row is due when its lease ends, so one index finds both what is new and what was left behind.
create index inbox_due_idx on tallybook.inbox (object_type, next_attempt_at) where dead_at is null;

-- The modifications a search has shown and that were asked for, so that overlapping searches do not ask again.
-- Unlogged: after a crash they ask once more.
create unlogged table tallybook.polled_records (
    object_type text not null,
    hubspot_id text not null,
    modified_at timestamptz not null,
    constraint polled_records_pkey primary key (object_type, hubspot_id)
);

create index polled_records_modified_idx on tallybook.polled_records (object_type, modified_at);

-- What the call budget remembers beside its slots. Unlogged as they are: a missing row tells that the slots are lost.
create unlogged table tallybook.crm_call_state (
    only_row boolean not null default true,
    -- Calls made before a crash are unknown, so until this nobody calls.
    quiet_until timestamptz,
    -- When a pull was last refused: somebody wants the call that pull is owed.
    pull_wanted_at timestamptz,
    daily_limit integer,
    daily_remaining integer,
    daily_noted_at timestamptz,
    -- The portal's midnight after that.
    daily_ends_at timestamptz,
    constraint crm_call_state_pkey primary key (only_row),
    constraint crm_call_state_has_one_row check (only_row)
);

insert into tallybook.crm_call_state default values;

insert into tallybook.application_rights (table_name, privilege, columns)
select t, p, null from unnest(array['crm_call_state', 'polled_records']) t, unnest(array['insert', 'update', 'delete']) p;

-- Asks for a record to be read again; asking twice is asking once. Whoever reads it at this moment may have read it
-- too early: the request is taken out of that lease, so that it outlives it.
create or replace function tallybook.ask_to_read(p_object_type text, p_hubspot_ids text[], p_after_s numeric)
returns void
language sql volatile
set search_path = ''
as $$
    insert into tallybook.inbox as i (object_type, hubspot_id, subscription_type, next_attempt_at)
    select p_object_type, u.id, 'reread', pg_catalog.clock_timestamp() + make_interval(secs => p_after_s)
    from (select distinct x as id from unnest(p_hubspot_ids) x where x is not null) u
    order by u.id
    on conflict on constraint inbox_event_key do update
        set next_attempt_at = case when i.lease_token is null and i.dead_at is null
                              then least(i.next_attempt_at, excluded.next_attempt_at)
                              else excluded.next_attempt_at end,
            attempts = case when i.dead_at is null then i.attempts else 0 end,
            last_error = case when i.dead_at is null then i.last_error end,
            lease_token = null, leased_until = null, dead_at = null
$$;

-- How long a hint waits after so many attempts: 0.5, 2, 8 s, then growing to ten minutes, with a random share so that
-- those that failed together do not come back together.
create function tallybook.reread_delay(p_attempts integer)
returns interval
language sql volatile
set search_path = ''
as $$
    select make_interval(secs => case when p_attempts < 3 then 0.5 * 4 ^ p_attempts
        else least(600, 8 * 2 ^ least(p_attempts - 2, 10)) * (0.75 + pg_catalog.random() / 2) end)
$$;

-- Up to p_limit records of the one type whose hints have waited longest, with all their due hints, leased to p_token.
-- What has failed with others comes alone, so that it takes nobody down with it. While pull is paused: one record to probe
-- with, when it is time.
create function tallybook.claim_inbox(p_types text[], p_token uuid, p_lease_s numeric, p_limit integer)
returns table (id bigint, object_type text, hubspot_id text, subscription_type text, details jsonb)
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
#variable_conflict use_column
declare
    v_now timestamptz := pg_catalog.clock_timestamp();
    v_until timestamptz := v_now + make_interval(secs => p_lease_s);
    v_first record;
    v_limit integer := p_limit;
begin
    if exists (select from tallybook.sync_lanes l where l.lane = 'pull' and l.paused_at is not null) then
        update tallybook.sync_lanes l set resume_at = v_until
        where l.lane = 'pull' and l.paused_at is not null and coalesce(l.resume_at, v_now) <= v_now;
        if not found then
            return;
        end if;
        v_limit := 1;
    end if;

    select t.name, f.id, f.comes_alone into v_first
    from unnest(p_types) as t (name)
    cross join lateral (
        select i.id, i.next_attempt_at, i.comes_alone from tallybook.inbox i
        where i.object_type = t.name and i.dead_at is null and i.next_attempt_at <= v_now
        order by i.next_attempt_at limit 1) f
    order by f.next_attempt_at limit 1;
    if not found then
        return;
    end if;

    return query
    with due as materialized (
        select i.id, i.hubspot_id, i.next_attempt_at from tallybook.inbox i
        where i.object_type = v_first.name and i.dead_at is null and i.next_attempt_at <= v_now
            and case when v_first.comes_alone then i.id = v_first.id else not i.comes_alone end
        order by i.next_attempt_at limit p_limit * 10
        for update skip locked
    ), chosen as (
        select d.hubspot_id from due d group by d.hubspot_id order by min(d.next_attempt_at) limit v_limit
    )
    update tallybook.inbox i
    set lease_token = p_token, leased_until = v_until, next_attempt_at = v_until,
        -- Whoever held it before is gone. Perhaps because of it: the third time it comes alone.
        attempts = i.attempts + (i.lease_token is not null)::integer,
        comes_alone = i.comes_alone or (i.lease_token is not null and i.attempts >= 2),
        last_error = case when i.lease_token is not null then 'its lease was lost' else i.last_error end
    from due d
    where i.id = d.id and d.hubspot_id in (select c.hubspot_id from chosen c)
    returning i.id, i.object_type, i.hubspot_id, i.subscription_type, i.details;
end
$$;

-- Ends a lease: what was followed up is removed; the rest waits as its outcome says: 'again' for as long as it takes,
-- 'refused' (what the record says cannot be taken) for two minutes, 'failed' (perhaps because of others) a dozen times,
-- 'later' p_wait_s without counting as an attempt. p_left: [{id, outcome, words}].
-- p_was_read: HubSpot answered, so a pause is over.
create function tallybook.settle_inbox(
    p_token uuid, p_done bigint[], p_left jsonb, p_wait_s numeric, p_was_read boolean
)
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_now timestamptz;
begin
    perform from tallybook.inbox i where i.lease_token = p_token order by i.object_type, i.id for update;
    v_now := pg_catalog.clock_timestamp();
    delete from tallybook.inbox i where i.lease_token = p_token and i.id = any (p_done);
    update tallybook.inbox i
    set lease_token = null, leased_until = null,
        attempts = i.attempts + (x.outcome <> 'later')::integer,
        comes_alone = i.comes_alone or x.outcome = 'failed',
        last_error = case when x.outcome in ('failed', 'refused') then left(x.words, 500)
                          when x.outcome = 'later' then i.last_error end,
        next_attempt_at = v_now + case when x.outcome = 'later' then make_interval(secs => p_wait_s)
                                  else tallybook.reread_delay(i.attempts) end,
        dead_at = case when (x.outcome = 'failed' and i.attempts >= 11)
                            or (x.outcome = 'refused' and i.attempts >= 6) then v_now end
    from jsonb_to_recordset(p_left) as x (id bigint, outcome text, words text)
    where i.id = x.id and i.lease_token = p_token;
    if p_was_read and exists (select from tallybook.sync_lanes l where l.lane = 'pull' and l.paused_at is not null) then
        perform tallybook.lane_works('pull', true);
    end if;
end
$$;

-- A page of a search: asks for what was not asked for yet and is newer than what we hold; gives how many. p_hits:
-- {hubspot id: instant of its modification}.
create function tallybook.note_polled(p_object_type text, p_hits jsonb)
returns integer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_wanted text[];
begin
    with hit as (
        select h.key as hubspot_id, h.value::timestamptz as modified_at from jsonb_each_text(p_hits) h
    ), known as (
        select c.hubspot_id, c.crm_modified_at from tallybook.contacts c
        where p_object_type = 'contact' and c.merged_into is null
            and c.hubspot_id in (select h.hubspot_id from hit h)
        union all
        select e.hubspot_id, e.crm_modified_at from tallybook.mock_exams e
        where p_object_type = 'mock_exam' and e.hubspot_id in (select h.hubspot_id from hit h)
        union all
        select b.hubspot_id, b.crm_modified_at from tallybook.bookings b
        where p_object_type = 'booking' and b.hubspot_id in (select h.hubspot_id from hit h)
    ), fresh as (
        insert into tallybook.polled_records as p (object_type, hubspot_id, modified_at)
        select p_object_type, h.hubspot_id, h.modified_at from hit h
        where not exists (select from known k
                          where k.hubspot_id = h.hubspot_id and k.crm_modified_at >= h.modified_at)
        order by h.hubspot_id
        on conflict on constraint polled_records_pkey do update set modified_at = excluded.modified_at
            where p.modified_at < excluded.modified_at
        returning p.hubspot_id
    )
    select array_agg(f.hubspot_id) into v_wanted from fresh f;
    perform tallybook.ask_to_read(p_object_type, v_wanted, 0);
    return coalesce(cardinality(v_wanted), 0);
end
$$;

-- Asks for those of ours that HubSpot's list did not show between two ids (p_end NULL: and beyond): before one counts as
-- deleted it is read by itself. Gives how many.
create function tallybook.ask_unseen(p_object_type text, p_first numeric, p_end numeric, p_seen text[])
returns integer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    -- Ids of one length compare as texts as they do as numbers, and texts have an index; else all are looked at.
    v_same_length boolean := coalesce(length(p_first::text) = length((p_end - 1)::text), false);
    v_low text := case when v_same_length then p_first::text else '' end;
    v_high text := case when v_same_length then (p_end - 1)::text else 'x' end;
    v_unseen text[];
begin
    with ours as (
        select c.hubspot_id, c.id from tallybook.contacts c
        where p_object_type = 'contact' and c.merged_into is null and c.archived_at is null and c.erased_at is null
            and c.hubspot_id between v_low and v_high
        union all
        select e.hubspot_id, e.id from tallybook.mock_exams e
        where p_object_type = 'mock_exam' and e.archived_at is null and e.hubspot_id between v_low and v_high
        union all
        select b.hubspot_id, b.id from tallybook.bookings b
        where p_object_type = 'booking' and b.hubspot_id between v_low and v_high
    )
    select array_agg(o.hubspot_id) into v_unseen from ours o
    where o.hubspot_id::numeric >= p_first and (p_end is null or o.hubspot_id::numeric < p_end)
        and o.hubspot_id <> all (p_seen) and not tallybook.is_deleted_there(p_object_type, o.id);
    perform tallybook.ask_to_read(p_object_type, v_unseen, 0);
    return coalesce(cardinality(v_unseen), 0);
end
$$;

-- Bookings whose associations HubSpot no longer shows: what we knew of them no longer holds, so they are due again.
-- p_links: [{hubspot_id, contacts: [id], mock_exams: [id]}], all that HubSpot has.
create function tallybook.forget_lost_links(p_links jsonb)
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_ids uuid[];
begin
    select array_agg(b.id order by b.id) into v_ids
    from jsonb_array_elements(p_links) l
    join tallybook.bookings b on b.hubspot_id = l ->> 'hubspot_id'
    where not coalesce(l -> 'contacts' ? b.crm_contact_hubspot_id, true)
        or not coalesce(l -> 'mock_exams' ? b.crm_mock_exam_hubspot_id, true);
    if v_ids is null then
        return;
    end if;
    perform from tallybook.bookings b where b.id = any (v_ids) order by b.id for no key update;
    update tallybook.bookings b
    set crm_contact_hubspot_id = case when l -> 'contacts' ? b.crm_contact_hubspot_id
                                 then b.crm_contact_hubspot_id end,
        crm_mock_exam_hubspot_id = case when l -> 'mock_exams' ? b.crm_mock_exam_hubspot_id
                                   then b.crm_mock_exam_hubspot_id end
    from jsonb_array_elements(p_links) l
    where b.id = any (v_ids) and b.hubspot_id = l ->> 'hubspot_id';
end
$$;

-- Looks through p_limit objects after p_after for something HubSpot has not been told and no outbox row says so; with
-- p_repair they are queued. `last_id` NULL: that was the end.
create function tallybook.queue_unpushed(
    p_object_type text, p_after uuid, p_limit integer, p_repair boolean,
    out last_id uuid, out looked_at integer, out unpushed integer
)
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_ids uuid[];
    v_unpushed uuid[];
begin
    select array_agg(o.id order by o.id) into v_ids from (
        select c.id from tallybook.contacts c
        where p_object_type = 'contact' and c.id > p_after and c.merged_into is null and c.erased_at is null
        union all
        select e.id from tallybook.mock_exams e where p_object_type = 'mock_exam' and e.id > p_after
        union all
        select b.id from tallybook.bookings b where p_object_type = 'booking' and b.id > p_after
        order by 1 limit p_limit) o;
    looked_at := coalesce(cardinality(v_ids), 0);
    last_id := case when looked_at = p_limit then v_ids[p_limit] end;
    select array_agg(p.id) into v_unpushed from (
        select c.id, tallybook.contact_plan(c, '{}') as plan from tallybook.contacts c
        where p_object_type = 'contact' and c.id = any (v_ids)
        union all
        select e.id, tallybook.mock_exam_plan(e, '{}') from tallybook.mock_exams e
        where p_object_type = 'mock_exam' and e.id = any (v_ids)
        union all
        select b.id, tallybook.booking_plan(b, '{}') from tallybook.bookings b
        where p_object_type = 'booking' and b.id = any (v_ids)) p
    where (p.plan).action <> 'drop'
        and not exists (select from tallybook.outbox o where o.object_type = p_object_type and o.object_id = p.id);
    unpushed := coalesce(cardinality(v_unpushed), 0);
    if p_repair and unpushed > 0 then
        perform tallybook.note_changes(array_fill(p_object_type, array[unpushed]), v_unpushed);
    end if;
end
$$;

-- When the portal's day ends, for limits that count by it.
create function tallybook.portal_midnight()
returns timestamptz
language plpgsql stable
set search_path = ''
as $$
declare
    v_zone text := coalesce((select s.value ->> 'time_zone' from tallybook.sync_state s where s.name = 'portal'), 'UTC');
begin
    return (date_trunc('day', pg_catalog.clock_timestamp() at time zone v_zone) + interval '1 day') at time zone v_zone;
exception when invalid_parameter_value then
    -- A zone this server does not know.
    return date_trunc('day', pg_catalog.clock_timestamp(), 'UTC') + interval '1 day';
end
$$;

drop function tallybook.take_call_slot(text, boolean, integer[], numeric[], numeric, numeric);

-- One call's place in the budget: {slot} when it may be sent now, else the seconds after which to ask again. A slot
-- is in use until one window after its answer (until then: after its latest possible answer), so no rolling window
-- can hold more than the limit. p_share: how much of the limit this kind of call may fill. Pull is owed a call a
-- second: it may then fill the limit, and while it waits others leave it a place. day_is_over: what is left of the
-- day's calls is kept for misses.
create function tallybook.take_call_slot(
    p_kind text, p_search boolean, p_limits integer[], p_windows_s numeric[], p_share numeric, p_timeout_s numeric,
    out slot bigint, out wait_s numeric, out day_is_over boolean
)
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_now timestamptz;
    v_state tallybook.crm_call_state;
    v_pull_is_owed boolean;
    v_in_use integer;
    v_most integer;
    v_free_at timestamptz;
begin
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('crm_call_slots', 3));
    v_now := pg_catalog.clock_timestamp();
    wait_s := 0;
    day_is_over := false;
    select * into v_state from tallybook.crm_call_state;
    if not found then
        insert into tallybook.crm_call_state (quiet_until)
        values (v_now + make_interval(secs => (select max(w) from unnest(p_windows_s) w)))
        returning * into v_state;
    end if;
    if v_state.quiet_until > v_now then
        wait_s := extract(epoch from v_state.quiet_until - v_now);
        return;
    end if;
    if p_kind not in ('miss', 'unsigned_miss') and v_now < v_state.daily_ends_at
            and v_state.daily_remaining < v_state.daily_limit / 10.0 then
        day_is_over := true;
        wait_s := extract(epoch from v_state.daily_ends_at - v_now);
        return;
    end if;

    delete from tallybook.crm_call_slots s where s.answered_at < v_now - interval '11 seconds';
    v_pull_is_owed := not p_search
        and (p_kind = 'pull' or v_state.pull_wanted_at > v_now - interval '1 second')
        and not exists (select from tallybook.crm_call_slots s
                        where not s.search and s.kind = 'pull' and s.taken_at > v_now - interval '1 second');
    for i in 1..cardinality(p_limits) loop
        v_most := greatest(1, floor(p_limits[i] * p_share)::integer);
        if v_pull_is_owed then
            v_most := case when p_kind = 'pull' then p_limits[i] else least(v_most, p_limits[i] - 1) end;
        end if;
        select count(*) into v_in_use from tallybook.crm_call_slots s
        where s.search = p_search and s.answered_at > v_now - make_interval(secs => p_windows_s[i]);
        if v_in_use >= v_most then
            select s.answered_at + make_interval(secs => p_windows_s[i]) into v_free_at
            from tallybook.crm_call_slots s
            where s.search = p_search and s.answered_at > v_now - make_interval(secs => p_windows_s[i])
            order by s.answered_at offset v_in_use - v_most limit 1;
            wait_s := greatest(wait_s, 0.005, extract(epoch from v_free_at - v_now));
        end if;
    end loop;
    if wait_s = 0 then
        insert into tallybook.crm_call_slots (kind, search, taken_at, answered_at)
        values (p_kind, p_search, v_now, v_now + make_interval(secs => p_timeout_s))
        returning id into slot;
    elsif p_kind = 'pull' and not p_search then
        update tallybook.crm_call_state set pull_wanted_at = v_now
        where pull_wanted_at is null or pull_wanted_at < v_now - interval '0.3 seconds';
    end if;
end
$$;

drop function tallybook.free_call_slot(bigint);

-- The answer has come; p_daily_*: what it said of the day's calls, if it did.
create function tallybook.free_call_slot(p_slot bigint, p_daily_limit integer, p_daily_remaining integer)
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
begin
    update tallybook.crm_call_slots set answered_at = pg_catalog.clock_timestamp() where id = p_slot;
    -- Now and then is often enough, but for the moment that decides.
    update tallybook.crm_call_state s
    set daily_limit = greatest(coalesce(p_daily_limit, s.daily_limit), 10), daily_remaining = p_daily_remaining,
        daily_noted_at = pg_catalog.clock_timestamp(), daily_ends_at = tallybook.portal_midnight()
    where p_daily_remaining is not null
        and (s.daily_noted_at is null or s.daily_noted_at < pg_catalog.clock_timestamp() - interval '2 seconds'
             or (s.daily_remaining < s.daily_limit / 10.0)
                 is distinct from (p_daily_remaining < greatest(coalesce(p_daily_limit, s.daily_limit), 10) / 10.0));
end
$$;

select tallybook.secure();
