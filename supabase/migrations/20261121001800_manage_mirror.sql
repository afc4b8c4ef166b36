-- What staff see of the mirror and do about it: how far it is behind, conflicts, dead letters, lanes, alerts.

select tallybook.begin_migration('20261121001800', 'manage_mirror', '0.1.0');

-- Calls to HubSpot by all processes. Unlogged: after a crash they are counted from 0 again, as a restarted program's.
create unlogged table tallybook.crm_call_counts (
    kind text not null,
    calls bigint not null default 0,
    throttled bigint not null default 0,
    throttled_at timestamptz,
    constraint crm_call_counts_pkey primary key (kind)
) with (fillfactor = 50);

insert into tallybook.application_rights (table_name, privilege, columns)
values ('crm_call_counts', 'insert', null), ('crm_call_counts', 'update', null);

-- p_counts: {kind: [calls, of them answered with 429]} since the process last said so.
create function tallybook.count_crm_calls(p_counts jsonb)
returns void
language sql volatile
set search_path = ''
as $$
    insert into tallybook.crm_call_counts as c (kind, calls, throttled, throttled_at)
    select n.key, (n.value ->> 0)::bigint, (n.value ->> 1)::bigint,
        case when (n.value ->> 1)::bigint > 0 then pg_catalog.clock_timestamp() end
    from jsonb_each(p_counts) n
    order by n.key
    on conflict on constraint crm_call_counts_pkey do update
        set calls = c.calls + excluded.calls, throttled = c.throttled + excluded.throttled,
            throttled_at = coalesce(excluded.throttled_at, c.throttled_at)
$$;

-- Everything about the mirror at one moment, for people, for monitoring and for alerts. Ages in seconds.
create function tallybook.sync_overview()
returns jsonb
language sql stable
set search_path = ''
as $$
    with now as (
        select pg_catalog.clock_timestamp() as at
    ), waiting as (
        select o.object_type as lane, count(*) filter (where o.dead_at is null) as waiting,
            count(*) filter (where o.dead_at is null and o.leased_until > n.at) as under_way,
            count(*) filter (where o.dead_at is not null) as dead_letters,
            extract(epoch from max(n.at - o.dirty_since) filter (where o.dead_at is null)) as oldest_s,
            extract(epoch from pg_catalog.percentile_disc(0.95) within group (order by n.at - o.dirty_since)
                    filter (where o.dead_at is null)) as p95_s
        from tallybook.outbox o, now n
        group by o.object_type
    ), inbox as (
        select count(*) filter (where i.dead_at is null) as waiting,
            count(*) filter (where i.dead_at is not null) as dead_letters,
            extract(epoch from max(n.at - greatest(i.received_at, i.next_attempt_at))
                    filter (where i.dead_at is null and i.next_attempt_at <= n.at)) as oldest_s
        from tallybook.inbox i, now n
    ), slots as (
        select s.kind, count(*) filter (where not s.search) as calls, count(*) filter (where s.search) as searches
        from tallybook.crm_call_slots s, now n
        where s.answered_at > n.at - case when s.search then interval '1 second' else interval '10 seconds' end
        group by s.kind
    ), conflicts as (
        select c.object_type, c.kind, count(*) as open, count(*) filter (where c.freezes) as frozen,
            extract(epoch from max(n.at - c.opened_at)) as oldest_s
        from tallybook.sync_conflicts c, now n
        where c.resolved_at is null
        group by c.object_type, c.kind
    )
    select jsonb_build_object(
        'as_of', tallybook.instant((select n.at from now n)),
        'lanes', (
            select jsonb_agg(jsonb_build_object(
                'lane', l.lane,
                'waiting', coalesce(w.waiting, i.waiting, 0), 'under_way', coalesce(w.under_way, 0),
                'oldest_s', round(coalesce(w.oldest_s, i.oldest_s, 0), 1),
                'p95_s', case when l.lane <> 'pull' then round(coalesce(w.p95_s, 0), 1) end,
                'dead_letters', coalesce(w.dead_letters, i.dead_letters, 0),
                'paused', case when l.paused_at is not null then jsonb_build_object(
                    'since', tallybook.instant(l.paused_at), 'reason', l.reason, 'words', l.words,
                    'resume_at', tallybook.instant(l.resume_at)) end) order by l.lane)
            from tallybook.sync_lanes l
            left join waiting w on w.lane = l.lane
            left join inbox i on l.lane = 'pull'),
        'conflicts', (
            select jsonb_build_object('open', coalesce(sum(c.open), 0), 'by_kind', coalesce(jsonb_agg(
                jsonb_build_object('object_type', c.object_type, 'kind', c.kind, 'open', c.open, 'frozen', c.frozen,
                                   'oldest_s', round(c.oldest_s, 1)) order by c.object_type, c.kind), '[]'))
            from conflicts c),
        'budget', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'kind', coalesce(s.kind, k.kind), 'in_use', coalesce(s.calls, 0),
                'searches_in_use', coalesce(s.searches, 0), 'calls', coalesce(k.calls, 0),
                'throttled', coalesce(k.throttled, 0), 'throttled_at', tallybook.instant(k.throttled_at))
                order by coalesce(s.kind, k.kind)), '[]')
            from slots s full join tallybook.crm_call_counts k on k.kind = s.kind),
        'pulled', (
            -- Everything HubSpot showed until `complete_to` has been asked for; NULL while the first pass lasts.
            select coalesce(jsonb_agg(jsonb_build_object(
                'object_type', substr(s.name, 6), 'complete_to', s.value ->> 'mark',
                'behind_s', round(greatest(0, extract(epoch from n.at - (s.value ->> 'mark')::timestamptz)), 1))
                order by s.name), '[]')
            from tallybook.sync_state s, now n where s.name like 'poll:%'),
        'hold', (select s.value from tallybook.sync_state s where s.name = 'hold'),
        'portal', (select s.value from tallybook.sync_state s where s.name = 'portal'),
        'alerts', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'kind', a.kind, 'subject', a.subject, 'since', tallybook.instant(a.raised_at), 'details', a.details)
                order by a.kind, a.subject), '[]')
            from tallybook.sync_alerts a where a.cleared_at is null))
$$;

-- How people call an object; personal, so for staff's eyes only.
create function tallybook.object_label(p_object_type text, p_object_id uuid)
returns text
language sql stable
set search_path = ''
as $$
    select case p_object_type
        when 'contact' then (
            select concat_ws(' ', c.student_id, nullif(concat_ws(' ', c.firstname, c.lastname), ''))
            from tallybook.contacts c where c.id = p_object_id)
        when 'mock_exam' then (
            select concat_ws(' ', e.mock_type, e.exam_on, to_char(e.start_time, 'HH24:MI'), e.location)
            from tallybook.mock_exams e where e.id = p_object_id)
        when 'booking' then (select b.booking_id from tallybook.bookings b where b.id = p_object_id)
    end
$$;

create function tallybook.object_hubspot_id(p_object_type text, p_object_id uuid)
returns text
language sql stable
set search_path = ''
as $$
    select case p_object_type
        when 'contact' then (select c.hubspot_id from tallybook.contacts c where c.id = p_object_id)
        when 'mock_exam' then (select e.hubspot_id from tallybook.mock_exams e where e.id = p_object_id)
        when 'booking' then (select b.hubspot_id from tallybook.bookings b where b.id = p_object_id)
    end
$$;

create function tallybook.contact_of(p_object_type text, p_object_id uuid)
returns uuid
language sql stable
set search_path = ''
as $$
    select case p_object_type
        when 'contact' then p_object_id
        when 'booking' then (select b.contact_id from tallybook.bookings b where b.id = p_object_id)
    end
$$;

create function tallybook.conflict_json(p_conflict tallybook.sync_conflicts)
returns jsonb
language sql stable
set search_path = ''
as $$
    select jsonb_build_object(
        'id', p_conflict.id, 'object_type', p_conflict.object_type, 'object_id', p_conflict.object_id,
        'hubspot_id', tallybook.object_hubspot_id(p_conflict.object_type, p_conflict.object_id),
        'label', tallybook.object_label(p_conflict.object_type, p_conflict.object_id),
        'field', p_conflict.field, 'kind', p_conflict.kind, 'ours', p_conflict.ours, 'theirs', p_conflict.theirs,
        'details', p_conflict.details, 'freezes', p_conflict.freezes,
        'opened_at', tallybook.instant(p_conflict.opened_at), 'resolved_at', tallybook.instant(p_conflict.resolved_at),
        'resolved_by', p_conflict.resolved_by, 'resolution', p_conflict.resolution)
$$;

-- One page, the oldest first. NULL for a filter: all.
create function tallybook.list_conflicts(
    p_object_type text, p_kind text, p_with_resolved boolean, p_page integer, p_limit integer
)
returns jsonb
language sql stable
set search_path = ''
as $$
    with chosen as (
        select c.id from tallybook.sync_conflicts c
        where (p_with_resolved or c.resolved_at is null)
            and (p_object_type is null or c.object_type = p_object_type) and (p_kind is null or c.kind = p_kind)
    ), page as (
        select c.id from chosen c order by c.id limit p_limit offset (p_page - 1) * p_limit
    )
    select jsonb_build_object(
        'conflicts', (
            select coalesce(jsonb_agg(tallybook.conflict_json(c) order by c.id), '[]')
            from tallybook.sync_conflicts c where c.id in (select p.id from page p)),
        'page', p_page, 'total', (select count(*) from chosen))
$$;

-- What could not be written to HubSpot, or read from it, and waits for a person; one page, the oldest first.
create function tallybook.list_dead_letters(p_type text, p_page integer, p_limit integer)
returns jsonb
language sql stable
set search_path = ''
as $$
    with chosen as (
        select o.object_type as type, o.object_id::text as id, o.object_type, o.object_id, null::text as hubspot_id,
            o.dirty_since as since, o.dead_at, o.attempts, o.last_error
        from tallybook.outbox o
        where o.dead_at is not null and (p_type is null or p_type = o.object_type)
        union all
        select 'inbox', i.id::text, i.object_type, null, i.hubspot_id, i.received_at, i.dead_at, i.attempts, i.last_error
        from tallybook.inbox i
        where i.dead_at is not null and (p_type is null or p_type = 'inbox')
    ), page as (
        select * from chosen d order by d.dead_at, d.type, d.id limit p_limit offset (p_page - 1) * p_limit
    )
    select jsonb_build_object(
        'dead_letters', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'type', p.type, 'id', p.id, 'object_type', p.object_type, 'object_id', p.object_id,
                'hubspot_id', coalesce(p.hubspot_id, tallybook.object_hubspot_id(p.object_type, p.object_id)),
                'label', tallybook.object_label(p.object_type, p.object_id), 'words', p.last_error,
                'attempts', p.attempts, 'changed_at', tallybook.instant(p.since),
                'dead_at', tallybook.instant(p.dead_at)) order by p.dead_at, p.type, p.id), '[]')
            from page p),
        'page', p_page, 'total', (select count(*) from chosen))
$$;

-- Tries a dead letter again, named by its object's UUID or its number in the inbox; NULL: all of them, at most a
-- thousand of each at once, so that no lock lasts.
create function tallybook.retry_dead(p_type text, p_id text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_pushed integer := 0;
    v_pulled integer := 0;
begin
    with due as (
        select o.object_type, o.object_id from tallybook.outbox o
        where o.dead_at is not null and (p_type is null or o.object_type = p_type)
            and (p_id is null or o.object_id = tallybook.uuid_or_null(p_id))
        order by o.object_type, o.object_id limit 1000 for update
    )
    update tallybook.outbox o
    set dead_at = null, attempts = 0, next_attempt_at = pg_catalog.clock_timestamp(), lease_token = null,
        leased_until = null
    from due d where o.object_type = d.object_type and o.object_id = d.object_id;
    get diagnostics v_pushed = row_count;
    with due as (
        select i.id from tallybook.inbox i
        where i.dead_at is not null and coalesce(p_type, 'inbox') = 'inbox' and (p_id is null or i.id::text = p_id)
        order by i.id limit 1000 for update
    )
    update tallybook.inbox i
    set dead_at = null, attempts = 0, next_attempt_at = pg_catalog.clock_timestamp(), lease_token = null,
        leased_until = null
    from due d where i.id = d.id;
    get diagnostics v_pulled = row_count;
    if p_id is not null and v_pushed + v_pulled = 0 then
        -- Repeated, or tried again by a change in the meantime: what was wanted is so.
        if exists (select from tallybook.outbox o
                   where o.object_id = tallybook.uuid_or_null(p_id) and (p_type is null or o.object_type = p_type))
                or (coalesce(p_type, 'inbox') = 'inbox'
                    and exists (select from tallybook.inbox i where i.id::text = p_id)) then
            return tallybook.grant_answer('already', jsonb_build_object('retried', 0));
        end if;
        return tallybook.refuse('NOT_FOUND');
    end if;
    return tallybook.grant_answer('ok', jsonb_build_object('retried', v_pushed + v_pulled));
end
$$;

-- Gives a dead letter up: HubSpot keeps what it shows until the object changes again. The reason stays in the audit log.
create function tallybook.discard_dead(p_type text, p_id text, p_reason text, p_actor text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_id uuid := tallybook.uuid_or_null(p_id);
    v_type text;
    v_object_type text;
    v_words text;
    v_audit_id bigint;
    v_object_id text := p_id;
    v_contact_id uuid;
begin
    delete from tallybook.outbox o
    where o.object_id = v_id and o.dead_at is not null and (p_type is null or o.object_type = p_type)
    returning o.object_type, o.object_type, o.last_error into v_type, v_object_type, v_words;
    if v_type is null and coalesce(p_type, 'inbox') = 'inbox' then
        delete from tallybook.inbox i where i.id::text = p_id and i.dead_at is not null
        returning 'inbox', i.object_type, i.hubspot_id, i.last_error into v_type, v_object_type, v_object_id, v_words;
    end if;
    if v_type is null then
        return tallybook.refuse('NOT_FOUND');
    end if;
    v_contact_id := tallybook.contact_of(v_object_type, v_id);
    insert into tallybook.audit_log (actor, action, object_type, object_id, contact_id, changes)
    values (p_actor, 'dead_letter.discarded', v_object_type, v_object_id, v_contact_id,
            jsonb_build_object('type', v_type))
    returning id into v_audit_id;
    insert into tallybook.audit_details (audit_id, contact_id, details)
    values (v_audit_id, v_contact_id, jsonb_build_object('reason', p_reason, 'words', v_words));
    return tallybook.grant_answer('ok', jsonb_build_object('type', v_type, 'id', p_id, 'words', v_words));
end
$$;

-- Lets a paused lane go on at once; what made it pause pauses it again if it is still there.
create function tallybook.resume_lane(p_lane text, p_actor text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_reason text;
begin
    select l.reason into v_reason from tallybook.sync_lanes l where l.lane = p_lane for update;
    if not found then
        return tallybook.refuse('NOT_FOUND');
    end if;
    if v_reason is null then
        return tallybook.grant_answer('already', jsonb_build_object('lane', p_lane));
    end if;
    update tallybook.sync_lanes set paused_at = null, reason = null, words = null, resume_at = null
    where lane = p_lane;
    insert into tallybook.audit_log (actor, action, object_type, object_id, changes)
    values (p_actor, 'lane.resumed', 'lane', p_lane, jsonb_build_object('reason', v_reason));
    return tallybook.grant_answer('ok', jsonb_build_object('lane', p_lane, 'reason', v_reason));
end
$$;

-- Settles a conflict as a person decided: our value, theirs, a third one, or neither ('dismiss'). What that means is
-- decided by resolve_<type>_conflict under the locks of the objects; here is what all have in common.
create function tallybook.resolve_conflict(p_id bigint, p_choice text, p_value text, p_actor text, p_reason text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_conflict tallybook.sync_conflicts;
    v_answer tallybook.answer;
    v_resolution text := p_choice;
begin
    -- Two people at one conflict: the second sees what the first decided. Not the row's own lock: whoever absorbs an
    -- answer of HubSpot's closes conflicts after having locked the object, which comes first in the order of locks.
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('resolve_conflict:' || p_id, 5));
    select * into v_conflict from tallybook.sync_conflicts c where c.id = p_id;
    if not found then
        return tallybook.refuse('NOT_FOUND');
    end if;
    if p_choice = 'value' then
        v_resolution := 'value: ' || coalesce(p_value, '');
    end if;
    if v_conflict.resolved_at is not null then
        if v_conflict.resolution = v_resolution then
            return tallybook.grant_answer('already', tallybook.conflict_json(v_conflict));
        end if;
        return tallybook.refuse('CONFIRMATION_STALE', jsonb_build_object(
            'resolved_by', v_conflict.resolved_by, 'resolution', v_conflict.resolution));
    end if;
    execute format('select (a).* from (select tallybook.%I($1, $2, $3, $4, $5) as a) x',
                   'resolve_' || v_conflict.object_type || '_conflict')
        into v_answer using v_conflict, p_choice, p_value, p_actor, p_reason;
    if v_answer.refusal is not null then
        return v_answer;
    end if;
    update tallybook.sync_conflicts c
    set resolved_at = coalesce(c.resolved_at, pg_catalog.clock_timestamp()), resolved_by = p_actor,
        resolution = v_resolution
    where c.id = p_id
    returning * into v_conflict;
    perform tallybook.record(
        'conflict.resolved', v_conflict.object_type, v_conflict.object_id,
        tallybook.contact_of(v_conflict.object_type, v_conflict.object_id), p_actor,
        jsonb_build_object('conflict', p_id, 'kind', v_conflict.kind, 'field', v_conflict.field, 'choice', p_choice),
        jsonb_build_object('reason', p_reason, 'ours', v_conflict.ours, 'theirs', v_conflict.theirs,
                           'value', p_value));
    return tallybook.grant_answer('ok', tallybook.conflict_json(v_conflict));
end
$$;

-- -- alerts ------------------------------------------------------------------------------------------------------

alter table tallybook.sync_alerts
    add column lease_token uuid,
    add column leased_until timestamptz,
    add column attempts integer not null default 0,
    add column next_attempt_at timestamptz not null default clock_timestamp(),
    add column last_error text;

-- Raises and clears the alerts that follow from how the mirror stands; others are raised and cleared by whoever sees
-- the reason. p_limits: {lag_s, inbox_s, throttled_s}.
create function tallybook.watch_mirror(p_limits jsonb)
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_now jsonb := tallybook.sync_overview();
    v_due jsonb;
    v_alert record;
begin
    select coalesce(jsonb_agg(d), '[]') into v_due from (
        select case l ->> 'lane' when 'pull' then 'inbox_lag' else 'lag' end as kind, l ->> 'lane' as subject,
            jsonb_build_object('oldest_s', l -> 'oldest_s', 'waiting', l -> 'waiting') as details
        from jsonb_array_elements(v_now -> 'lanes') l
        where (l ->> 'oldest_s')::numeric
            > (p_limits ->> case l ->> 'lane' when 'pull' then 'inbox_s' else 'lag_s' end)::numeric
        union all
        select 'poll_lag', p ->> 'object_type', jsonb_build_object('behind_s', p -> 'behind_s')
        from jsonb_array_elements(v_now -> 'pulled') p
        where (p ->> 'behind_s')::numeric > (p_limits ->> 'inbox_s')::numeric
        union all
        select 'dead_letters', l ->> 'lane', jsonb_build_object('dead_letters', l -> 'dead_letters')
        from jsonb_array_elements(v_now -> 'lanes') l where (l ->> 'dead_letters')::integer > 0
        union all
        select 'lane_paused', l ->> 'lane', jsonb_build_object('reason', l #> '{paused,reason}')
        from jsonb_array_elements(v_now -> 'lanes') l where jsonb_typeof(l -> 'paused') = 'object'
        union all
        select 'conflicts', c ->> 'object_type' || ':' || (c ->> 'kind'),
            jsonb_build_object('open', c -> 'open', 'frozen', c -> 'frozen')
        from jsonb_array_elements(v_now #> '{conflicts,by_kind}') c
        union all
        select 'push_held', '', jsonb_build_object('reason', v_now #> '{hold,reason}')
        where jsonb_typeof(v_now -> 'hold') = 'object'
        union all
        select 'throttled', b ->> 'kind', jsonb_build_object('throttled', b -> 'throttled')
        from jsonb_array_elements(v_now -> 'budget') b
        where (b ->> 'throttled_at')::timestamptz
            > pg_catalog.clock_timestamp() - make_interval(secs => (p_limits ->> 'throttled_s')::numeric)
    ) d;
    -- In the order of their keys, as everybody takes these locks.
    for v_alert in
        select d ->> 'kind' as kind, d ->> 'subject' as subject, d -> 'details' as details, true as due
        from jsonb_array_elements(v_due) d
        union all
        select a.kind, a.subject, null, false from tallybook.sync_alerts a
        where a.cleared_at is null
            and a.kind in ('lag', 'inbox_lag', 'poll_lag', 'dead_letters', 'lane_paused', 'conflicts', 'push_held',
                           'throttled')
            and not exists (select from jsonb_array_elements(v_due) d
                            where d ->> 'kind' = a.kind and d ->> 'subject' = a.subject)
        order by 1, 2
    loop
        if v_alert.due then
            perform tallybook.raise_alert(v_alert.kind, v_alert.subject, v_alert.details);
        else
            perform tallybook.clear_alert(v_alert.kind, v_alert.subject);
        end if;
    end loop;
end
$$;

-- Alerts nobody has been told about, or whose end nobody has been told, for one sender at a time. One that was over
-- before anybody heard of it is passed over.
create function tallybook.claim_alerts(p_limit integer, p_lease_s double precision)
returns table (kind text, subject text, state text, raised_at timestamptz, cleared_at timestamptz, details jsonb,
               attempts integer, token uuid)
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
#variable_conflict use_column
declare
    v_token uuid := gen_random_uuid();
    v_now timestamptz := pg_catalog.clock_timestamp();
begin
    update tallybook.sync_alerts a set clear_sent_at = v_now
    where a.sent_at is null and a.cleared_at is not null and a.clear_sent_at is null
        and coalesce(a.leased_until, '-infinity') <= v_now;
    return query
    update tallybook.sync_alerts a
    set lease_token = v_token, leased_until = v_now + make_interval(secs => p_lease_s)
    from (select d.kind, d.subject from tallybook.sync_alerts d
          where d.next_attempt_at <= v_now and coalesce(d.leased_until, '-infinity') <= v_now
              and (d.sent_at is null or (d.cleared_at is not null and d.clear_sent_at is null))
              and not (d.sent_at is null and d.cleared_at is not null)
          order by d.raised_at, d.kind, d.subject limit p_limit for update skip locked) d
    where a.kind = d.kind and a.subject = d.subject
    returning a.kind, a.subject, case when a.sent_at is null then 'opened' else 'cleared' end, a.raised_at,
        a.cleared_at, a.details, a.attempts, v_token;
end
$$;

-- How sending went; p_error NULL: it arrived. A state that changed meanwhile is another message.
create function tallybook.settle_alert(
    p_kind text, p_subject text, p_state text, p_raised_at timestamptz, p_token uuid, p_error text,
    p_again_s double precision
)
returns boolean
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_now timestamptz := pg_catalog.clock_timestamp();
begin
    update tallybook.sync_alerts a
    set lease_token = null, leased_until = null, last_error = p_error,
        attempts = case when p_error is null then 0 else a.attempts + 1 end,
        next_attempt_at = case when p_error is null then v_now else v_now + make_interval(secs => p_again_s) end,
        sent_at = case when p_error is null and p_state = 'opened' and a.raised_at = p_raised_at then v_now
                       else a.sent_at end,
        clear_sent_at = case when p_error is null and p_state = 'cleared' and a.raised_at = p_raised_at then v_now
                             else a.clear_sent_at end
    where a.kind = p_kind and a.subject = p_subject and a.lease_token = p_token;
    return found;
end
$$;

select tallybook.secure();
