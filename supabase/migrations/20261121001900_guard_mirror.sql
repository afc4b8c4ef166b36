-- Whose mirror is it: this database is bound to one portal, a marker there says to which database, and a database that
-- was restored from a backup is found out before it can push yesterday's numbers.

select tallybook.begin_migration('20261121001900', 'guard_mirror', '0.1.0');

-- Why nothing may be written to HubSpot; NULL: it may. Claims ask this.
create or replace function tallybook.push_hold()
returns text
language sql stable
set search_path = ''
as $$ select value ->> 'reason' from tallybook.sync_state where name = 'hold' $$;

-- Stops pushing until `release_hold`; `watch_mirror` tells people. The first reason stays, but for the hold of a
-- restore, `unchecked` until the epochs were compared.
create function tallybook.hold_pushing(p_reason text, p_details jsonb)
returns void
language sql volatile
set search_path = ''
as $$
    -- `last_entry` tells what was booked before from what was booked since.
    insert into tallybook.sync_state (name, value)
    values ('hold', p_details || jsonb_build_object('reason', p_reason, 'since', clock_timestamp(),
        'last_entry', (select coalesce(max(e.id), 0) from tallybook.credit_entries e)))
    on conflict (name) do update
        set value = excluded.value || jsonb_build_object('since', sync_state.value -> 'since',
                                                         'last_entry', sync_state.value -> 'last_entry')
        where sync_state.value ? 'unchecked'
$$;

create function tallybook.release_hold()
returns void
language sql volatile
set search_path = ''
as $$ delete from tallybook.sync_state where name = 'hold' $$;

-- This database's own name, made once; a copy of the database has it too.
create function tallybook.database_id()
returns uuid
language plpgsql volatile
set search_path = ''
as $$
declare
    v_id uuid;
begin
    insert into tallybook.sync_state (name, value)
    values ('database', jsonb_build_object('database_id', gen_random_uuid()))
    on conflict (name) do nothing;
    select (value ->> 'database_id')::uuid into v_id from tallybook.sync_state where name = 'database';
    return v_id;
end
$$;

-- How often this database and HubSpot have been confirmed to belong to one history. `next` is written before HubSpot
-- is told, `confirmed` afterwards: HubSpot shows a number above both only to a database that has forgotten it.
create function tallybook.known_epoch()
returns bigint
language sql stable
set search_path = ''
as $$
    select coalesce((select greatest((value ->> 'confirmed')::bigint, (value ->> 'next')::bigint)
                     from tallybook.sync_state where name = 'epoch'), 0)
$$;

-- Something was pushed: a row has left the outbox. The statistics count that for nothing, and a crash, which resets
-- them, only makes the epoch rise once more.
create function tallybook.outbox_departures()
returns bigint
language sql stable
set search_path = ''
as $$
    select s.n_tup_del from pg_catalog.pg_stat_user_tables s where s.relid = 'tallybook.outbox'::regclass
$$;

-- Compares what the token opens and what the marker there says with what this database knows, and binds them at first
-- contact. No marker: p_database_id NULL. Sets the hold when HubSpot is ahead.
create function tallybook.check_portal(
    p_portal_id bigint, p_time_zone text, p_database_id uuid, p_epoch bigint,
    out problem text, out portal_id bigint, out database_id uuid, out hold text, out raise_epoch boolean
)
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_epoch jsonb;
    v_portal jsonb;
begin
    database_id := tallybook.database_id();
    if p_database_id <> database_id then
        problem := 'database';
    else
        insert into tallybook.sync_state (name, value)
        values ('portal', jsonb_build_object('portal_id', p_portal_id, 'time_zone', p_time_zone,
                                             'database_id', database_id))
        on conflict (name) do nothing;
    end if;
    select value into v_portal from tallybook.sync_state where name = 'portal';
    portal_id := coalesce((v_portal ->> 'portal_id')::bigint, p_portal_id);
    if portal_id <> p_portal_id then
        problem := 'portal';
    end if;
    if problem is null then
        update tallybook.sync_state set value = value || jsonb_build_object('time_zone', p_time_zone)
        where name = 'portal' and v_portal ->> 'time_zone' is distinct from p_time_zone;
        if p_epoch > tallybook.known_epoch() then
            perform tallybook.hold_pushing('restored', jsonb_build_object(
                'epoch', tallybook.known_epoch(), 'epoch_in_hubspot', p_epoch));
        elsif (p_epoch is not null or tallybook.known_epoch() = 0)
                and exists (select from tallybook.sync_state where name = 'hold' and value ? 'unchecked') then
            perform tallybook.release_hold();
        end if;
    end if;
    hold := tallybook.push_hold();
    select value into v_epoch from tallybook.sync_state where name = 'epoch';
    -- A marker that is gone is written again, a raise that was interrupted repeated; else every five minutes in which
    -- something was pushed.
    raise_epoch := problem is null and hold is null and (p_database_id is null or v_epoch is null
        or (v_epoch ->> 'next')::bigint > (v_epoch ->> 'confirmed')::bigint
        or ((v_epoch ->> 'raised_at')::timestamptz < pg_catalog.clock_timestamp() - interval '5 minutes'
            and (v_epoch ->> 'departures')::bigint is distinct from tallybook.outbox_departures()));
end
$$;

-- The epoch to write to HubSpot; NULL while somebody else is writing one, which ends within 30 s.
create function tallybook.begin_epoch()
returns bigint
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_epoch jsonb;
    v_next bigint;
begin
    insert into tallybook.sync_state (name, value) values ('epoch', '{"confirmed": 0, "next": 0}')
    on conflict (name) do nothing;
    select value into v_epoch from tallybook.sync_state where name = 'epoch' for update;
    if (v_epoch ->> 'begun_at')::timestamptz > pg_catalog.clock_timestamp() - interval '30 seconds' then
        return null;
    end if;
    v_next := tallybook.known_epoch() + 1;
    update tallybook.sync_state
    -- Counted now: what is pushed while HubSpot is told may be before or after it there.
    set value = v_epoch || jsonb_build_object('next', v_next, 'departures', tallybook.outbox_departures(),
        'begun_at', tallybook.instant(pg_catalog.clock_timestamp()))
    where name = 'epoch';
    return v_next;
end
$$;

-- HubSpot has the epoch.
create function tallybook.confirm_epoch(p_epoch bigint)
returns void
language sql volatile
set search_path = ''
as $$
    update tallybook.sync_state
    set value = (value - 'begun_at') || jsonb_build_object(
        'confirmed', greatest((value ->> 'confirmed')::bigint, p_epoch),
        'raised_at', tallybook.instant(pg_catalog.clock_timestamp()))
    where name = 'epoch'
$$;

-- Binds this database to the portal the token opens, whatever either belonged to. Pushing is on hold until
-- `sync reconcile --after-restore` has compared the two. To another portal (`forgetting`), what is known of the old
-- one's records has to be forgotten first; until both are done nothing is pulled, since a first meeting would add
-- HubSpot's numbers to ours.
create function tallybook.begin_rebind(p_portal_id bigint, p_time_zone text, p_epoch bigint, p_actor text)
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_before jsonb;
    v_other boolean;
begin
    insert into tallybook.sync_state (name, value)
    values ('portal', jsonb_build_object('portal_id', p_portal_id)), ('epoch', '{"confirmed": 0, "next": 0}')
    on conflict (name) do nothing;
    select value into v_before from tallybook.sync_state where name = 'portal' for update;
    v_other := (v_before ->> 'portal_id')::bigint <> p_portal_id
        or coalesce((select (value ->> 'forgetting')::boolean from tallybook.sync_state where name = 'hold'), false);
    update tallybook.sync_state
    set value = jsonb_build_object('portal_id', p_portal_id, 'time_zone', p_time_zone,
                                   'database_id', tallybook.database_id())
    where name = 'portal';
    update tallybook.sync_state
    set value = value || jsonb_build_object('confirmed', greatest(tallybook.known_epoch(), p_epoch))
    where name = 'epoch';
    perform tallybook.release_hold();
    perform tallybook.hold_pushing('rebound',
        jsonb_build_object('portal_before', v_before -> 'portal_id', 'forgetting', v_other, 'ours_stand', v_other));
    perform tallybook.record('mirror.rebound', 'database', tallybook.database_id(), null, p_actor,
        jsonb_build_object('portal_before', v_before -> 'portal_id', 'portal_id', p_portal_id), null);
end
$$;

-- Forgets the records of the old portal for up to so many objects; 0 when nothing is left. HubSpot ids given out for
-- people stay as aliases.
create function tallybook.forget_records(p_limit integer)
returns integer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_ids uuid[];
begin
    if not coalesce((select (value ->> 'forgetting')::boolean from tallybook.sync_state where name = 'hold'), false) then
        return 0;
    end if;
    select array_agg(c.id order by c.id) into v_ids
    from (select c.id from tallybook.contacts c
          where c.hubspot_id is not null or c.crm_modified_at is not null or c.crm_unknown or c.crm_unread
          limit p_limit) c;
    if v_ids is not null then
        perform from tallybook.contacts c where c.id = any (v_ids) order by c.id for no key update;
        insert into tallybook.contact_aliases (kind, value, contact_id)
        select 'hubspot_id', c.hubspot_id, coalesce(c.merged_into, c.id) from tallybook.contacts c
        where c.id = any (v_ids) and c.hubspot_id is not null
        on conflict do nothing;
        update tallybook.credit_balances b set crm_base = null, crm_unreadable = false where b.contact_id = any (v_ids);
        update tallybook.contacts c
        set hubspot_id = null, crm_base = '{}', crm_sent = '{}', crm_stamp = null, crm_modified_at = null,
            crm_unread = false, crm_unknown = false, synced_at = null
        where c.id = any (v_ids);
        perform tallybook.note_changes(array_fill('contact'::text, array[cardinality(v_ids)]), v_ids);
        return cardinality(v_ids);
    end if;
    select array_agg(e.id order by e.id) into v_ids
    from (select e.id from tallybook.mock_exams e
          where e.hubspot_id is not null or e.crm_modified_at is not null or e.crm_unknown limit p_limit) e;
    if v_ids is not null then
        perform from tallybook.mock_exams e where e.id = any (v_ids) order by e.id for no key update;
        update tallybook.mock_exams e
        set hubspot_id = null, crm_base = '{}', crm_sent = '{}', crm_modified_at = null, crm_unknown = false,
            synced_at = null
        where e.id = any (v_ids);
        perform tallybook.note_changes(array_fill('mock_exam'::text, array[cardinality(v_ids)]), v_ids);
        return cardinality(v_ids);
    end if;
    select array_agg(b.id order by b.id) into v_ids
    from (select b.id from tallybook.bookings b
          where b.hubspot_id is not null or b.crm_modified_at is not null or b.crm_unknown limit p_limit) b;
    if v_ids is not null then
        perform from tallybook.bookings b where b.id = any (v_ids) order by b.id for no key update;
        update tallybook.bookings b
        set hubspot_id = null, crm_base = '{}', crm_sent = '{}', crm_modified_at = null, crm_unknown = false,
            crm_contact_hubspot_id = null, crm_mock_exam_hubspot_id = null, synced_at = null
        where b.id = any (v_ids);
        perform tallybook.note_changes(array_fill('booking'::text, array[cardinality(v_ids)]), v_ids);
        return cardinality(v_ids);
    end if;
    update tallybook.sync_conflicts
    set resolved_at = pg_catalog.clock_timestamp(), resolved_by = 'system', resolution = 'rebound'
    where resolved_at is null;
    delete from tallybook.inbox;
    -- How far pulling and importing had come.
    delete from tallybook.sync_state where name like 'poll:%' or name like 'import:%' or name like 'reconcile%';
    update tallybook.sync_state set value = value || '{"forgetting": false}' where name = 'hold';
    return 0;
end
$$;

select tallybook.secure();
