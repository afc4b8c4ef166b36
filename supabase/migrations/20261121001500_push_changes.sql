-- Telling HubSpot: who may send what, what exactly is sent, and what becomes of it. A claim is a lease with a token,
-- committed at once; no transaction is open while HubSpot is called. Objects are locked before outbox rows, and never
-- waited for where students book: what somebody else holds is left for a moment later.

select tallybook.begin_migration('20261121001500', 'push_changes', '0.1.0');

-- How often the lane has failed since it last worked; the next pause is longer.
alter table tallybook.sync_lanes add column failures integer not null default 0;

-- What was written last, by property: writing the very same again is an answer to somebody else's edit.
alter table tallybook.contacts add column crm_written jsonb not null default '{}';

-- The sessions HubSpot's booking was to be associated with since that was last confirmed, whatever became of it.
alter table tallybook.bookings add column crm_tried_mock_exams text[] not null default '{}';

create type tallybook.push_plan as (
    action text,        -- 'drop', 'wait', 'read', 'create', 'upsert', 'update'
    properties jsonb    -- {HubSpot property: text, or null to clear it}
);

-- Why nothing may be pushed at present; NULL: it may.
create function tallybook.push_hold()
returns text
language sql stable
set search_path = ''
as $$
    select coalesce(s.value ->> 'reason', 'held') from tallybook.sync_state s where s.name = 'hold'
$$;

-- HubSpot's record was deleted and a person has been asked what to do: until then there is nothing to write to.
create function tallybook.is_deleted_there(p_object_type text, p_object_id uuid)
returns boolean
language sql stable
as $$
    select exists (select from tallybook.sync_conflicts c
                   where c.object_type = p_object_type and c.object_id = p_object_id and c.kind = 'deleted'
                       and c.resolved_at is null)
$$;

-- Where our texts differ from the base, without those frozen by a conflict and those HubSpot does not let us write.
create function tallybook.changed_texts(
    p_object_type text, p_object_id uuid, p_mirror jsonb, p_base jsonb, p_skip text[]
)
returns jsonb
language sql stable
as $$
    select coalesce(jsonb_object_agg(m.key, m.value), '{}')
    from jsonb_each_text(p_mirror) m
    where m.value is distinct from p_base ->> m.key
        and m.key <> all (p_skip)
        and not tallybook.is_frozen(p_object_type, p_object_id, m.key)
$$;

-- Values given, as the whole of a new record: nothing that is empty, nothing that HubSpot does not let us write.
create function tallybook.given_texts(p_values jsonb, p_skip text[])
returns jsonb
language sql immutable
as $$
    select coalesce(jsonb_object_agg(m.key, m.value), '{}')
    from jsonb_each_text(p_values) m where m.value is not null and m.key <> all (p_skip)
$$;

-- Our id rides along where HubSpot has not shown it yet; by itself it is no reason to write.
create function tallybook.with_our_id(p_changes jsonb, p_id uuid, p_base jsonb)
returns jsonb
language sql immutable
as $$
    select case when p_changes = '{}' or p_base ->> 'tallybook_id' is not null then p_changes
                else p_changes || jsonb_build_object('tallybook_id', p_id) end
$$;

-- Remembers what was sent, per property, newest last: a value of ours that comes back is no edit.
create function tallybook.with_sent(p_sent jsonb, p_values jsonb)
returns jsonb
language sql immutable
as $$
    select p_sent || coalesce(jsonb_object_agg(v.key, (
        select jsonb_agg(s.text order by s.nr)
        from (select x.text, x.nr
              from jsonb_array_elements(coalesce(p_sent -> v.key, '[]') || jsonb_build_array(v.value))
                  with ordinality as x (text, nr)
              where x.nr > jsonb_array_length(coalesce(p_sent -> v.key, '[]')) or x.text <> v.value
              order by x.nr desc limit 20) s)), '{}')
    from jsonb_each(p_values) v
$$;

-- The sent values without those that HubSpot has confirmed: those are the base now.
create function tallybook.without_sent(p_sent jsonb, p_values jsonb)
returns jsonb
language sql immutable
as $$
    select coalesce(jsonb_object_agg(s.key, s.left_over) filter (where s.left_over <> '[]'), '{}')
    from (select e.key, coalesce((select jsonb_agg(x order by nr)
                                  from jsonb_array_elements(e.value) with ordinality as l (x, nr)
                                  where not (p_values ? e.key and x = p_values -> e.key)), '[]') as left_over
          from jsonb_each(p_sent) e) s
$$;

-- The numbers and texts HubSpot has to be told, as texts. Not those of a retired type, which nobody reads back; nor an
-- empty e-mail: it means that somebody else has the address now, and theirs is the next answer to come.
create function tallybook.contact_changes(p_contact tallybook.contacts, p_skip text[])
returns jsonb
language sql stable
as $$
    select coalesce(jsonb_object_agg(d.key, d.value), '{}')
    from (
        select m.key, m.value from jsonb_each_text(tallybook.dirty_texts(p_contact.id)) m
        where not (m.key = 'email' and m.value is null)
        union all
        select n.key, n.value from jsonb_each_text(tallybook.dirty_balances(p_contact.id)) n
        join tallybook.credit_types t on t.hubspot_property = n.key and t.retired_at is null
    ) d
    where d.key <> all (p_skip)
$$;

create function tallybook.contact_plan(p_contact tallybook.contacts, p_skip text[])
returns tallybook.push_plan
language plpgsql stable
as $$
declare
    v_changes jsonb;
begin
    if coalesce(p_contact.merged_into::text, p_contact.erased_at::text, p_contact.archived_at::text) is not null
            or tallybook.is_deleted_there('contact', p_contact.id) then
        return row('drop', '{}')::tallybook.push_plan;
    elsif p_contact.hubspot_id is null then
        -- Without numbers: HubSpot's are met first, then ours are written as any others.
        return row('create', tallybook.given_texts(
            tallybook.contact_mirror(p_contact) || jsonb_build_object('tallybook_id', p_contact.id),
            p_skip))::tallybook.push_plan;
    elsif p_contact.crm_unread or p_contact.crm_modified_at is null or exists (
            select from tallybook.credit_balances b
            join tallybook.credit_types t on t.name = b.credit_type
            where b.contact_id = p_contact.id and t.hubspot_property is not null and t.retired_at is null
                and b.crm_base is null and not b.crm_unreadable) then
        return row('read', '{}')::tallybook.push_plan;
    end if;
    v_changes := tallybook.contact_changes(p_contact, p_skip);
    return row(case when v_changes = '{}' then 'drop' else 'update' end,
        tallybook.with_our_id(v_changes, p_contact.id, p_contact.crm_base))::tallybook.push_plan;
end
$$;

create function tallybook.mock_exam_plan(p_exam tallybook.mock_exams, p_skip text[])
returns tallybook.push_plan
language plpgsql stable
as $$
declare
    v_changes jsonb;
    v_name jsonb := jsonb_build_object('mock_exam_name',
        concat_ws('-', p_exam.mock_type, p_exam.location, p_exam.exam_on));
begin
    if p_exam.archived_at is not null or tallybook.is_deleted_there('mock_exam', p_exam.id) then
        return row('drop', '{}')::tallybook.push_plan;
    elsif p_exam.hubspot_id is null then
        return row('upsert', tallybook.given_texts(tallybook.mock_exam_mirror(p_exam) || v_name
            || jsonb_build_object('tallybook_id', p_exam.id), p_skip))::tallybook.push_plan;
    end if;
    v_changes := tallybook.changed_texts('mock_exam', p_exam.id, tallybook.mock_exam_mirror(p_exam),
        p_exam.crm_base, p_skip);
    if v_changes ?| array['mock_type', 'location', 'exam_date'] then
        v_changes := v_changes || tallybook.given_texts(v_name, p_skip);
    end if;
    return row(case when v_changes = '{}' then 'drop' else 'update' end,
        tallybook.with_our_id(v_changes, p_exam.id, p_exam.crm_base))::tallybook.push_plan;
end
$$;

-- Which records HubSpot's booking has to be associated with; NULL where it is already, or where there is none.
create function tallybook.booking_links(
    p_booking tallybook.bookings, out contact_hubspot_id text, out mock_exam_hubspot_id text
)
language sql stable
as $$
    select case when c.archived_at is null then nullif(c.hubspot_id, p_booking.crm_contact_hubspot_id) end,
        case when e.archived_at is null then nullif(e.hubspot_id, p_booking.crm_mock_exam_hubspot_id) end
    from tallybook.contacts c, tallybook.mock_exams e
    where c.id = p_booking.contact_id and e.id = p_booking.mock_exam_id
$$;

create function tallybook.booking_plan(p_booking tallybook.bookings, p_skip text[])
returns tallybook.push_plan
language plpgsql stable
as $$
declare
    v_contact tallybook.contacts;
    v_exam record;
    v_links record;
    v_changes jsonb;
begin
    if tallybook.is_deleted_there('booking', p_booking.id) then
        return row('drop', '{}')::tallybook.push_plan;
    elsif p_booking.hubspot_id is null then
        select * into v_contact from tallybook.contacts c where c.id = p_booking.contact_id;
        select e.hubspot_id, e.archived_at into v_exam from tallybook.mock_exams e where e.id = p_booking.mock_exam_id;
        if v_contact.erased_at is not null then
            return row('drop', '{}')::tallybook.push_plan;
        elsif v_contact.hubspot_id is null or v_contact.archived_at is not null
                or v_exam.hubspot_id is null or v_exam.archived_at is not null then
            return row('wait', '{}')::tallybook.push_plan;
        end if;
        return row(case when p_booking.crm_unknown then 'upsert' else 'create' end, tallybook.given_texts(
            tallybook.booking_mirror(p_booking) || jsonb_build_object(
                'name', nullif(btrim(concat_ws(' ', v_contact.firstname, v_contact.lastname)), ''),
                'email', v_contact.email, 'student_id', v_contact.student_id, 'tallybook_id', p_booking.id),
            p_skip))::tallybook.push_plan;
    end if;
    v_changes := tallybook.with_our_id(tallybook.changed_texts('booking', p_booking.id,
        tallybook.booking_mirror(p_booking), p_booking.crm_base, p_skip), p_booking.id, p_booking.crm_base);
    v_links := tallybook.booking_links(p_booking);
    if v_changes <> '{}' or v_links.contact_hubspot_id is not null or v_links.mock_exam_hubspot_id is not null then
        return row('update', v_changes)::tallybook.push_plan;
    end if;
    -- Moved to a session HubSpot has not got yet: that it takes place there now is still to be told.
    return row(case when exists (select from tallybook.mock_exams e
                                 where e.id = p_booking.mock_exam_id and e.hubspot_id is null and e.archived_at is null)
                    then 'wait' else 'drop' end, '{}')::tallybook.push_plan;
end
$$;

-- Leases up to p_limit objects of a lane, once so many wait or the oldest has waited p_linger_s; none while pushing is
-- held or the lane paused. When a paused lane's time has come, one object goes ahead as a probe. `wait_s`: when it is
-- worth asking again, where that is known.
create function tallybook.claim_outbox(
    p_lane text, p_token uuid, p_limit integer, p_linger_s numeric, p_lease_s numeric,
    out claimed uuid[], out probing boolean, out wait_s numeric
)
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_now timestamptz := pg_catalog.clock_timestamp();
    v_lane tallybook.sync_lanes;
    v_waiting integer;
    v_oldest timestamptz;
begin
    claimed := '{}';
    select * into v_lane from tallybook.sync_lanes l where l.lane = p_lane;
    probing := v_lane.paused_at is not null;
    if tallybook.push_hold() is not null or (probing and v_lane.resume_at is null) then
        return;
    elsif probing and v_lane.resume_at > v_now then
        wait_s := extract(epoch from v_lane.resume_at - v_now);
        return;
    end if;
    select count(*), min(d.next_attempt_at) into v_waiting, v_oldest
    from (select o.next_attempt_at from tallybook.outbox o
          where o.object_type = p_lane and o.dead_at is null and o.next_attempt_at <= v_now
              and (o.leased_until is null or o.leased_until <= v_now)
          order by o.next_attempt_at limit p_limit) d;
    if v_waiting = 0 then
        select extract(epoch from min(o.next_attempt_at) - v_now) into wait_s
        from tallybook.outbox o
        where o.object_type = p_lane and o.dead_at is null and o.next_attempt_at > v_now;
        return;
    elsif v_waiting < p_limit and v_oldest > v_now - make_interval(secs => p_linger_s::double precision) then
        wait_s := extract(epoch from v_oldest - v_now) + p_linger_s;
        return;
    end if;

    with due as materialized (
        select o.object_id from tallybook.outbox o
        where o.object_type = p_lane and o.dead_at is null and o.next_attempt_at <= v_now
            and (o.leased_until is null or o.leased_until <= v_now)
        order by o.next_attempt_at
        limit case when probing then 1 else p_limit end
        for update skip locked
    ), leased as (
        update tallybook.outbox o
        set lease_token = p_token, leased_until = v_now + make_interval(secs => p_lease_s::double precision)
        from due where o.object_type = p_lane and o.object_id = due.object_id
        returning o.object_id
    )
    select coalesce(array_agg(l.object_id), '{}') into claimed from leased l;
    if probing and cardinality(claimed) > 0 then
        -- Whoever comes second finds the next probe in the future, and its own claim is undone.
        update tallybook.sync_lanes l set resume_at = v_now + make_interval(secs => p_lease_s::double precision)
        where l.lane = p_lane and l.resume_at = v_lane.resume_at;
        if not found then
            update tallybook.outbox o set lease_token = null, leased_until = null
            where o.object_type = p_lane and o.object_id = any (claimed);
            claimed := '{}';
        end if;
    end if;
end
$$;

-- Gives leased objects back: due in p_wait_s, with no attempt used up.
create function tallybook.release_outbox(p_lane text, p_token uuid, p_ids uuid[], p_wait_s numeric)
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
begin
    perform from tallybook.outbox o
    where o.object_type = p_lane and o.object_id = any (p_ids) and o.lease_token = p_token
    order by o.object_id for update;
    update tallybook.outbox o
    set lease_token = null, leased_until = null,
        next_attempt_at = pg_catalog.clock_timestamp() + make_interval(secs => p_wait_s::double precision)
    where o.object_type = p_lane and o.object_id = any (p_ids) and o.lease_token = p_token;
end
$$;

-- An attempt failed: later again, ever later and never all at once, up to hours; or dead, with HubSpot's own words.
-- p_rows: [{id, words, dead, wait_s?}].
create function tallybook.fail_outbox(p_lane text, p_token uuid, p_rows jsonb, p_attempts integer)
returns integer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_now timestamptz := pg_catalog.clock_timestamp();
    v_dead integer;
begin
    perform from tallybook.outbox o
    where o.object_type = p_lane and o.lease_token = p_token
        and o.object_id in (select (r ->> 'id')::uuid from jsonb_array_elements(p_rows) r)
    order by o.object_id for update;
    with failed as (
        update tallybook.outbox o
        set lease_token = null, leased_until = null, attempts = o.attempts + 1, last_error = r ->> 'words',
            dead_at = case when (r ->> 'dead')::boolean or o.attempts + 1 >= p_attempts then v_now end,
            next_attempt_at = v_now + make_interval(secs => coalesce((r ->> 'wait_s')::double precision,
                least(14400, 5 * 2 ^ least(o.attempts, 20)) * (0.5 + pg_catalog.random())))
        from jsonb_array_elements(p_rows) r
        where o.object_type = p_lane and o.object_id = (r ->> 'id')::uuid and o.lease_token = p_token
        returning o.dead_at
    )
    select count(f.dead_at) into v_dead from failed f;
    return v_dead;
end
$$;

-- The lane stops; its rows stay as they are. The pause doubles with each failure in a row, from p_wait_s to p_most_s.
create function tallybook.pause_lane(
    p_lane text, p_reason text, p_words text, p_wait_s numeric, p_most_s numeric
)
returns timestamptz
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_lane tallybook.sync_lanes;
begin
    update tallybook.sync_lanes l
    set paused_at = coalesce(l.paused_at, pg_catalog.clock_timestamp()), reason = p_reason, words = p_words,
        failures = l.failures + 1,
        resume_at = pg_catalog.clock_timestamp() + make_interval(secs =>
            (least(greatest(p_most_s, p_wait_s), p_wait_s * 2 ^ least(l.failures, 20))
             * (1 + pg_catalog.random() / 4))::double precision)
    where l.lane = p_lane
    returning * into v_lane;
    perform tallybook.raise_alert('lane_paused', p_lane,
        jsonb_build_object('reason', p_reason, 'words', p_words, 'resume_at', tallybook.instant(v_lane.resume_at)));
    return v_lane.resume_at;
end
$$;

-- What was sent has arrived: the pause is over. A probe that only read proves nothing where writing was refused; then
-- the next object goes ahead.
create function tallybook.lane_works(p_lane text, p_has_written boolean)
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
begin
    if not p_has_written then
        update tallybook.sync_lanes l set resume_at = pg_catalog.clock_timestamp()
        where l.lane = p_lane and l.reason in ('forbidden', 'unknown_property', 'read_only_property', 'setup');
        if found then
            return;
        end if;
    end if;
    update tallybook.sync_lanes l
    set paused_at = null, reason = null, words = null, resume_at = null, failures = 0
    where l.lane = p_lane;
    perform tallybook.clear_alert('lane_paused', p_lane);
end
$$;

-- Renews the leases of objects that are locked, gives those back that somebody else holds, and drops nothing.
-- The caller holds the objects of p_locked.
create function tallybook.renew_leases(p_lane text, p_token uuid, p_ids uuid[], p_locked uuid[])
returns void
language plpgsql volatile
as $$
begin
    perform tallybook.release_outbox(p_lane, p_token,
        (select coalesce(array_agg(i), '{}') from unnest(p_ids) i where i <> all (p_locked)), 0.1);
    perform from tallybook.outbox o
    where o.object_type = p_lane and o.object_id = any (p_locked) and o.lease_token = p_token
    order by o.object_id for update;
    update tallybook.outbox o set leased_until = pg_catalog.clock_timestamp() + interval '60 seconds'
    where o.object_type = p_lane and o.object_id = any (p_locked) and o.lease_token = p_token;
end
$$;

-- There is nothing to say about an object: its row goes, unless a change was noted since it was looked at.
create function tallybook.drop_outbox(p_lane text, p_token uuid, p_id uuid, p_version bigint)
returns void
language plpgsql volatile
as $$
begin
    delete from tallybook.outbox o
    where o.object_type = p_lane and o.object_id = p_id and o.lease_token = p_token and o.version = p_version;
    perform tallybook.release_outbox(p_lane, p_token, array[p_id], 0);
end
$$;

-- What was written is confirmed: the row goes where nothing has changed since and nothing is left to say, else it is
-- due again at once. The caller holds the objects; p_clean are those with nothing left to say.
create function tallybook.settle_outbox(p_lane text, p_token uuid, p_rows jsonb, p_clean uuid[])
returns void
language plpgsql volatile
as $$
begin
    perform from tallybook.outbox o
    where o.object_type = p_lane and o.lease_token = p_token
        and o.object_id in (select (r ->> 'id')::uuid from jsonb_array_elements(p_rows) r)
    order by o.object_id for update;
    delete from tallybook.outbox o
    using jsonb_array_elements(p_rows) r
    where o.object_type = p_lane and o.object_id = (r ->> 'id')::uuid and o.lease_token = p_token
        and o.version = (r ->> 'version')::bigint and o.object_id = any (p_clean);
    -- What is left was noted while the write was under way; it has waited since then only.
    update tallybook.outbox o
    set lease_token = null, leased_until = null, attempts = 0, last_error = null,
        next_attempt_at = pg_catalog.clock_timestamp(), dirty_since = pg_catalog.clock_timestamp()
    from jsonb_array_elements(p_rows) r
    where o.object_type = p_lane and o.object_id = (r ->> 'id')::uuid and o.lease_token = p_token;
end
$$;

-- Bookings that waited for a HubSpot id need not wait longer.
create function tallybook.wake_bookings(p_contact_ids uuid[], p_mock_exam_ids uuid[])
returns void
language plpgsql volatile
as $$
declare
    v_ids uuid[];
begin
    select array_agg(l.object_id) into v_ids
    from (select o.object_id from tallybook.outbox o
          join tallybook.bookings b on b.id = o.object_id
          where o.object_type = 'booking' and o.lease_token is null and o.dead_at is null
              and o.next_attempt_at > pg_catalog.clock_timestamp()
              and (b.contact_id = any (p_contact_ids) or b.mock_exam_id = any (p_mock_exam_ids))
          order by o.object_id
          for update of o skip locked) l;
    update tallybook.outbox o set next_attempt_at = pg_catalog.clock_timestamp()
    where o.object_type = 'booking' and o.object_id = any (v_ids);
end
$$;

-- What is to be sent about leased contacts, decided and numbered now: [{id, version, action, hubspot_id, properties}].
-- Whoever gets an `update` has written it down as sent but not read back; until that has happened nobody writes again.
-- A `fight` writes the same for more than the tenth time in a minute: somebody else keeps changing it back.
create function tallybook.prepare_contacts(p_token uuid, p_ids uuid[], p_skip text[])
returns jsonb
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_locked uuid[];
    v_row record;
    v_plan tallybook.push_plan;
    v_numbers text;
    v_found jsonb := '[]';
begin
    select coalesce(array_agg(l.id), '{}') into v_locked
    from (select c.id from tallybook.contacts c where c.id = any (p_ids)
          order by c.id for no key update skip locked) l;
    perform tallybook.renew_leases('contact', p_token, p_ids, v_locked);
    for v_row in
        select c as contact, o.version, o.attempts from tallybook.outbox o
        join tallybook.contacts c on c.id = o.object_id
        where o.object_type = 'contact' and o.object_id = any (v_locked) and o.lease_token = p_token
        order by o.object_id
    loop
        v_plan := tallybook.contact_plan(v_row.contact, p_skip);
        if v_plan.action = 'drop' then
            perform tallybook.drop_outbox('contact', p_token, (v_row.contact).id, v_row.version);
            continue;
        elsif v_plan.action = 'update' then
            if (v_row.contact).crm_written @> v_plan.properties
                    and not tallybook.allow_call('rewrite:' || (v_row.contact).id, 10) then
                v_plan.action := 'fight';
            else
                select string_agg(' ' || n.key || '=' || n.value, '' order by n.key) into v_numbers
                from jsonb_each_text(v_plan.properties) n
                join tallybook.credit_types t on t.hubspot_property = n.key;
                update tallybook.contacts c
                set write_no = c.write_no + 1, crm_unread = true, crm_written = c.crm_written || v_plan.properties,
                    crm_sent = tallybook.with_sent(c.crm_sent, (
                        select coalesce(jsonb_object_agg(n.key, n.value), '{}')
                        from jsonb_each(v_plan.properties - 'tallybook_id') n
                        where not exists (select from tallybook.credit_types t where t.hubspot_property = n.key)))
                where c.id = (v_row.contact).id;
                v_plan.properties := v_plan.properties || jsonb_build_object('tallybook_sync',
                    (v_row.contact).write_no + 1 || coalesce(v_numbers, ''));
            end if;
        end if;
        v_found := v_found || jsonb_build_object('id', (v_row.contact).id, 'version', v_row.version,
            'attempts', v_row.attempts, 'action', v_plan.action, 'hubspot_id', (v_row.contact).hubspot_id,
            'properties', v_plan.properties);
    end loop;
    return v_found;
end
$$;

-- The write was refused before it was applied: there is nothing to read back.
create function tallybook.refuse_contacts(p_token uuid, p_ids uuid[])
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
begin
    perform from tallybook.contacts c where c.id = any (p_ids) order by c.id for no key update;
    update tallybook.contacts c set crm_unread = false
    where c.id = any (p_ids) and exists (
        select from tallybook.outbox o
        where o.object_type = 'contact' and o.object_id = c.id and o.lease_token = p_token);
end
$$;

-- HubSpot has made a record of a contact of ours. p_rows: [{id, hubspot_id}]; gives the ids of those that have it now.
create function tallybook.adopt_contacts(p_token uuid, p_rows jsonb)
returns uuid[]
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_linked uuid[];
begin
    perform from tallybook.contacts c
    where c.id in (select (r ->> 'id')::uuid from jsonb_array_elements(p_rows) r) order by c.id for no key update;
    update tallybook.contacts c set hubspot_id = r ->> 'hubspot_id', crm_unknown = false
    from jsonb_array_elements(p_rows) r
    where c.id = (r ->> 'id')::uuid and c.hubspot_id is null and c.merged_into is null
        and not exists (select from tallybook.contacts o
                        where o.hubspot_id = r ->> 'hubspot_id' and o.merged_into is null);
    select coalesce(array_agg(c.id), '{}') into v_linked
    from jsonb_array_elements(p_rows) r
    join tallybook.contacts c on c.id = (r ->> 'id')::uuid and c.hubspot_id = r ->> 'hubspot_id';
    perform tallybook.wake_bookings(v_linked, '{}');
    return v_linked;
end
$$;

-- The contacts were read back and absorbed. p_rows: [{id, version, hubspot_id, written}]; gives the ids of those
-- settled: what somebody else holds at this moment is for the caller to try again, and what has become another record
-- meanwhile is read again. `written`: HubSpot has our id now.
create function tallybook.confirm_contacts(p_token uuid, p_rows jsonb, p_skip text[])
returns uuid[]
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_locked uuid[];
    v_clean uuid[];
begin
    select coalesce(array_agg(l.id), '{}') into v_locked
    from (select c.id from tallybook.contacts c, jsonb_array_elements(p_rows) r
          where c.id = (r ->> 'id')::uuid and c.hubspot_id = r ->> 'hubspot_id'
          order by c.id for no key update of c skip locked) l;
    -- A lease that was lost belongs to somebody who may be writing: what is unread then is theirs to read.
    update tallybook.contacts c
    set crm_unread = false, synced_at = pg_catalog.clock_timestamp(),
        crm_base = case when (r ->> 'written')::boolean
                        then c.crm_base || jsonb_build_object('tallybook_id', c.id) else c.crm_base end
    from jsonb_array_elements(p_rows) r
    where c.id = any (v_locked) and c.id = (r ->> 'id')::uuid and exists (
        select from tallybook.outbox o
        where o.object_type = 'contact' and o.object_id = c.id and o.lease_token = p_token);
    select coalesce(array_agg(c.id), '{}') into v_clean
    from tallybook.contacts c
    where c.id = any (v_locked) and tallybook.contact_changes(c, p_skip) = '{}';
    perform tallybook.clear_alert('contact_fight', a.subject) from tallybook.sync_alerts a
    where a.kind = 'contact_fight' and a.subject = any (v_clean::text[]) and a.cleared_at is null
        and tallybook.calls_in_window('rewrite:' || a.subject) < 1;
    perform tallybook.settle_outbox('contact', p_token,
        (select coalesce(jsonb_agg(r), '[]') from jsonb_array_elements(p_rows) r
         where (r ->> 'id')::uuid = any (v_locked)), v_clean);
    return v_locked;
end
$$;

-- As prepare_contacts. Seats are ours alone and need no lock: whoever books notes the session again, so a number that
-- is out of date a moment later is sent again. Anything else is remembered as sent, under the session's lock.
create function tallybook.prepare_mock_exams(p_token uuid, p_ids uuid[], p_skip text[])
returns jsonb
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_row record;
    v_plan tallybook.push_plan;
    v_texts jsonb;
    v_found jsonb := '[]';
begin
    perform tallybook.renew_leases('mock_exam', p_token, p_ids, p_ids);
    for v_row in
        select e as exam, o.version, o.attempts from tallybook.outbox o
        join tallybook.mock_exams e on e.id = o.object_id
        where o.object_type = 'mock_exam' and o.object_id = any (p_ids) and o.lease_token = p_token
        order by o.object_id
    loop
        v_plan := tallybook.mock_exam_plan(v_row.exam, p_skip);
        v_texts := v_plan.properties - array['total_bookings', 'mock_exam_name', 'tallybook_id'];
        if v_plan.action = 'drop' then
            perform tallybook.drop_outbox('mock_exam', p_token, (v_row.exam).id, v_row.version);
            continue;
        elsif v_texts <> '{}' then
            perform from tallybook.mock_exams e where e.id = (v_row.exam).id for no key update skip locked;
            if not found then
                perform tallybook.release_outbox('mock_exam', p_token, array[(v_row.exam).id], 0.1);
                continue;
            end if;
            update tallybook.mock_exams e set crm_sent = tallybook.with_sent(e.crm_sent, v_texts)
            where e.id = (v_row.exam).id;
        end if;
        v_found := v_found || jsonb_build_object('id', (v_row.exam).id, 'version', v_row.version,
            'attempts', v_row.attempts, 'action', v_plan.action, 'hubspot_id', (v_row.exam).hubspot_id,
            'properties', v_plan.properties);
    end loop;
    return v_found;
end
$$;

-- HubSpot has taken these values. p_rows: [{id, version, hubspot_id, updated_at, properties}]; gives the ids settled.
-- An answer absorbed since is newer than this one and has set the base itself.
create function tallybook.confirm_mock_exams(p_token uuid, p_rows jsonb, p_skip text[])
returns uuid[]
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_ids uuid[];
    v_new uuid[];
    v_clean uuid[];
begin
    select array_agg(l.id) into v_ids
    from (select e.id from tallybook.mock_exams e
          where e.id in (select (r ->> 'id')::uuid from jsonb_array_elements(p_rows) r)
              and not exists (select from tallybook.mock_exams x, jsonb_array_elements(p_rows) r
                              where (r ->> 'id')::uuid = e.id and x.hubspot_id = r ->> 'hubspot_id' and x.id <> e.id)
          order by e.id for no key update) l;
    select coalesce(array_agg(e.id), '{}') into v_new
    from tallybook.mock_exams e where e.id = any (v_ids) and e.hubspot_id is null;
    update tallybook.mock_exams e
    set hubspot_id = coalesce(e.hubspot_id, r ->> 'hubspot_id'), synced_at = pg_catalog.clock_timestamp(),
        crm_unknown = false, crm_sent = tallybook.without_sent(e.crm_sent, r -> 'properties'),
        crm_base = case when coalesce(e.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
                        then e.crm_base || ((r -> 'properties') - 'mock_exam_name') else e.crm_base end
    from jsonb_array_elements(p_rows) r
    where e.id = any (v_ids) and e.id = (r ->> 'id')::uuid;
    perform tallybook.wake_bookings('{}', v_new);
    select coalesce(array_agg(e.id), '{}') into v_clean
    from tallybook.mock_exams e
    where e.id = any (v_ids) and (tallybook.mock_exam_plan(e, p_skip)).action = 'drop';
    perform tallybook.settle_outbox('mock_exam', p_token,
        (select coalesce(jsonb_agg(r), '[]') from jsonb_array_elements(p_rows) r
         where (r ->> 'id')::uuid = any (v_ids)), v_clean);
    return coalesce(v_ids, '{}');
end
$$;

-- As prepare_contacts, with the records to associate: [{..., contact_to, contact_from, mock_exam_to, mock_exams_from}].
-- An association of unknown outcome may be there: it is ended with the confirmed one once another takes its place.
-- A new booking counts as of unknown outcome from now on. One whose contact or session HubSpot does not have yet
-- waits, longer the longer it has waited, and uses up no attempt.
create function tallybook.prepare_bookings(p_token uuid, p_ids uuid[], p_skip text[])
returns jsonb
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_locked uuid[];
    v_row record;
    v_plan tallybook.push_plan;
    v_links record;
    v_found jsonb := '[]';
begin
    select coalesce(array_agg(l.id), '{}') into v_locked
    from (select b.id from tallybook.bookings b where b.id = any (p_ids)
          order by b.id for no key update skip locked) l;
    perform tallybook.renew_leases('booking', p_token, p_ids, v_locked);
    for v_row in
        select b as booking, o.version, o.attempts,
            extract(epoch from pg_catalog.clock_timestamp() - o.dirty_since)::numeric as age_s
        from tallybook.outbox o
        join tallybook.bookings b on b.id = o.object_id
        where o.object_type = 'booking' and o.object_id = any (v_locked) and o.lease_token = p_token
        order by o.object_id
    loop
        v_plan := tallybook.booking_plan(v_row.booking, p_skip);
        if v_plan.action = 'drop' then
            perform tallybook.drop_outbox('booking', p_token, (v_row.booking).id, v_row.version);
            continue;
        elsif v_plan.action = 'wait' then
            perform tallybook.release_outbox('booking', p_token, array[(v_row.booking).id],
                least(60, greatest(0.5, v_row.age_s / 4)));
            continue;
        end if;
        v_links := tallybook.booking_links(v_row.booking);
        update tallybook.bookings b
        set crm_unknown = b.crm_unknown or v_plan.action = 'create',
            crm_sent = tallybook.with_sent(b.crm_sent,
                v_plan.properties - array['name', 'email', 'student_id', 'tallybook_id']),
            crm_tried_mock_exams = case
                when v_plan.action = 'create' then array_remove(array[v_links.mock_exam_hubspot_id], null)
                when v_links.mock_exam_hubspot_id is null then b.crm_tried_mock_exams
                else array_remove(b.crm_tried_mock_exams, v_links.mock_exam_hubspot_id)
                    || v_links.mock_exam_hubspot_id end
        where b.id = (v_row.booking).id;
        v_found := v_found || jsonb_build_object('id', (v_row.booking).id, 'version', v_row.version,
            'attempts', v_row.attempts, 'action', v_plan.action, 'hubspot_id', (v_row.booking).hubspot_id,
            'properties', v_plan.properties,
            'contact_to', v_links.contact_hubspot_id, 'mock_exam_to', v_links.mock_exam_hubspot_id,
            'contact_from', (v_row.booking).crm_contact_hubspot_id,
            'mock_exams_from', array_remove(array_remove((v_row.booking).crm_tried_mock_exams
                || (v_row.booking).crm_mock_exam_hubspot_id, null), v_links.mock_exam_hubspot_id));
    end loop;
    return v_found;
end
$$;

-- The creation was refused before it was applied: the next one may be a plain one again.
create function tallybook.refuse_bookings(p_token uuid, p_ids uuid[])
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
begin
    perform from tallybook.bookings b where b.id = any (p_ids) order by b.id for no key update;
    update tallybook.bookings b set crm_unknown = false
    where b.id = any (p_ids) and b.hubspot_id is null and exists (
        select from tallybook.outbox o
        where o.object_type = 'booking' and o.object_id = b.id and o.lease_token = p_token);
end
$$;

-- As confirm_mock_exams, with `contact_to` and `mock_exam_to`, the records it is associated with now, where that
-- changed. A row that is not to be settled (`settle` false) keeps its lease: something else about it failed.
create function tallybook.confirm_bookings(p_token uuid, p_rows jsonb, p_skip text[])
returns uuid[]
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_locked uuid[];
    v_clean uuid[];
begin
    select coalesce(array_agg(l.id), '{}') into v_locked
    from (select b.id from tallybook.bookings b
          where b.id in (select (r ->> 'id')::uuid from jsonb_array_elements(p_rows) r)
              and not exists (select from tallybook.bookings x, jsonb_array_elements(p_rows) r
                              where (r ->> 'id')::uuid = b.id and x.hubspot_id = r ->> 'hubspot_id' and x.id <> b.id)
          order by b.id for no key update skip locked) l;
    update tallybook.bookings b
    set hubspot_id = coalesce(b.hubspot_id, r ->> 'hubspot_id'), synced_at = pg_catalog.clock_timestamp(),
        crm_unknown = false, crm_sent = tallybook.without_sent(b.crm_sent, r -> 'properties'),
        crm_base = case when coalesce(b.crm_modified_at, '-infinity') <= (r ->> 'updated_at')::timestamptz
                        then b.crm_base || ((r -> 'properties') - array['name', 'email', 'student_id'])
                        else b.crm_base end,
        crm_contact_hubspot_id = case when o.lease_token = p_token
            then coalesce(r ->> 'contact_to', b.crm_contact_hubspot_id) else b.crm_contact_hubspot_id end,
        -- Whoever lost the lease knows nothing of what was associated since.
        crm_mock_exam_hubspot_id = case when o.lease_token = p_token
            then coalesce(r ->> 'mock_exam_to', b.crm_mock_exam_hubspot_id) else b.crm_mock_exam_hubspot_id end,
        crm_tried_mock_exams = case when o.lease_token = p_token and r ->> 'mock_exam_to' is not null
            then '{}' else b.crm_tried_mock_exams end
    from jsonb_array_elements(p_rows) r
    left join tallybook.outbox o on o.object_type = 'booking' and o.object_id = (r ->> 'id')::uuid
    where b.id = any (v_locked) and b.id = (r ->> 'id')::uuid;
    select coalesce(array_agg(b.id), '{}') into v_clean
    from tallybook.bookings b
    where b.id = any (v_locked) and (tallybook.booking_plan(b, p_skip)).action = 'drop';
    perform tallybook.settle_outbox('booking', p_token,
        (select coalesce(jsonb_agg(r), '[]') from jsonb_array_elements(p_rows) r
         where (r ->> 'id')::uuid = any (v_locked) and coalesce((r ->> 'settle')::boolean, true)), v_clean);
    return v_locked;
end
$$;

-- What a push would do now with everything that waits: nothing is claimed, numbered or changed.
create function tallybook.preview_push(p_skip jsonb)
returns table (
    object_type text, object_id uuid, hubspot_id text, waiting_since timestamptz, dead boolean, action text,
    properties jsonb
)
language sql stable
set search_path = ''
as $$
    select o.object_type, o.object_id, d.hubspot_id, o.dirty_since, o.dead_at is not null, (d.plan).action,
        (d.plan).properties
    from tallybook.outbox o
    cross join lateral (
        select c.hubspot_id, tallybook.contact_plan(c, array(select jsonb_array_elements_text(p_skip -> 'contact')))
        from tallybook.contacts c where o.object_type = 'contact' and c.id = o.object_id
        union all
        select e.hubspot_id, tallybook.mock_exam_plan(e, array(select jsonb_array_elements_text(p_skip -> 'mock_exam')))
        from tallybook.mock_exams e where o.object_type = 'mock_exam' and e.id = o.object_id
        union all
        select b.hubspot_id, tallybook.booking_plan(b, array(select jsonb_array_elements_text(p_skip -> 'booking')))
        from tallybook.bookings b where o.object_type = 'booking' and b.id = o.object_id
    ) d (hubspot_id, plan)
    where (d.plan).action <> 'drop'
    order by o.dirty_since, o.object_type, o.object_id
$$;

select tallybook.secure();
