-- Portals whose histories do not give all that one request wrote one time: `tallybook doctor` finds that out and keeps it
-- beside the portal's id. There the time of an answer no longer tells which entries it had in it, so our stamps do.

select tallybook.begin_migration('20261121002050', 'tell_own_writes_by_nearness', '0.1.0');

-- How far the times of one request may lie apart in these histories.
create function tallybook.own_within(p_history jsonb)
returns interval
language sql immutable
set search_path = ''
as $$ select make_interval(secs => coalesce((p_history ->> 'own_within_s')::double precision, 0)) $$;

drop function tallybook.entries_seen(jsonb, integer, boolean, timestamptz);

-- How many of a history's entries (oldest first) the last answer absorbed had in it: those up to its time, of which
-- the newest readable one has to be the base. NULL: it is not, so entries between them are lost. Entries of the very
-- millisecond may have come before or after that answer; the base tells. So it does where times are only about right,
-- but there an own write may have brought the base back after an edit: p_stamp, the stamp of that answer, tells which
-- of our entries it had in it, and between two of ours there are only edits, whose sum is the same either way.
create function tallybook.entries_seen(
    p_entries jsonb, p_base integer, p_unset boolean, p_since timestamptz, p_history jsonb, p_stamp text
)
returns integer
language plpgsql immutable
set search_path = ''
as $$
declare
    v_within interval := tallybook.own_within(p_history);
    v_before integer;
    v_until integer;
    v_number integer;
begin
    select count(*) filter (where (e ->> 'at')::timestamptz < p_since - v_within),
        count(*) filter (where (e ->> 'at')::timestamptz <= p_since + v_within)
    into v_before, v_until
    from jsonb_array_elements(p_entries) e;
    if v_within > '0' then
        select greatest(v_before, max(e.rank) filter (where (e.entry ->> 'own_rank')::integer <= r.read)),
            least(v_until, min(e.rank) filter (where (e.entry ->> 'own_rank')::integer > r.read) - 1)
        into v_before, v_until
        from (select coalesce(max(s.rank), 0) as read
              from jsonb_array_elements_text(p_history -> 'stamps') with ordinality as s (stamp, rank)
              where s.stamp = p_stamp) r
        cross join jsonb_array_elements(p_entries) with ordinality as e (entry, rank);
    end if;
    for i in reverse v_until..v_before loop
        select (e.entry ->> 'number')::integer into v_number
        from jsonb_array_elements(p_entries) with ordinality as e (entry, rank)
        where e.rank <= i and e.entry ->> 'number' is not null
            and not ((e.entry ->> 'empty')::boolean and p_base <> 0)
        order by e.rank desc limit 1;
        -- Nothing readable yet is 0. HubSpot keeps at least twenty entries, so fewer are all there ever were, also
        -- where whoever set the base did not say that it is 0 for want of a number.
        if v_number = p_base or (v_number is null and (p_unset or p_base = 0)
                                 and (i > 0 or jsonb_array_length(p_entries) < 20)) then
            return i;
        end if;
    end loop;
    return null;
end
$$;

-- The numbers of an answer that may hold own writes nobody has read: entry by entry, from the base on, own ones
-- move the base, all others are edits. The caller holds the contact's lock.
create or replace function tallybook.absorb_history(p_answer jsonb, p_contact_id uuid, p_since timestamptz)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
    v_type record;
    v_seen integer;
    v_chain integer;
    v_entry jsonb;
    v_edits jsonb;
    v_unreadable boolean;
    v_stamp text := (select c.crm_stamp from tallybook.contacts c where c.id = p_contact_id);
    -- Whether the stamps of all own writes since then are among those shown: the one absorbed last still is, or they are
    -- fewer than HubSpot keeps.
    v_all_stamps boolean := (
        select case when c.crm_stamp is null then jsonb_array_length(p_answer -> 'history' -> 'stamps') < 20
                    else p_answer -> 'history' -> 'stamps' ? c.crm_stamp end
        from tallybook.contacts c where c.id = p_contact_id);
begin
    for v_type in
        select t.name, t.hubspot_property, b.balance, b.crm_base, b.crm_unset,
            p_answer -> 'balances' ->> t.name as number, p_answer -> 'unreadable' ->> t.name as odd_text,
            p_answer -> 'empty' ? t.name as is_empty,
            coalesce(p_answer -> 'history' -> 'balances' -> t.name, '[]') as entries
        from tallybook.credit_types t
        join tallybook.credit_balances b on b.contact_id = p_contact_id and b.credit_type = t.name
        where b.crm_base is not null and (p_answer -> 'balances' ? t.name or p_answer -> 'unreadable' ? t.name)
            and not tallybook.is_frozen('contact', p_contact_id, t.name)
        order by t.name
    loop
        v_seen := tallybook.entries_seen(v_type.entries, v_type.crm_base, v_type.crm_unset, p_since,
            p_answer -> 'history', v_stamp);
        -- More was typed than HubSpot keeps: as long as nobody but people wrote it, the sum is the difference all the same.
        if v_seen is null and v_all_stamps and tallybook.is_newer_throughout(
                    v_type.entries, p_since - tallybook.own_within(p_answer -> 'history'))
                and not tallybook.is_written_since(p_answer, p_contact_id, v_type.hubspot_property) then
            v_seen := 0;
        end if;
        if v_seen is null or (v_seen < jsonb_array_length(v_type.entries) and not v_all_stamps) then
            perform tallybook.open_conflict('contact', p_contact_id, v_type.name, 'gap', v_type.balance::text,
                coalesce(v_type.odd_text, v_type.number),
                jsonb_build_object('base', v_type.crm_base, 'theirs', v_type.number::integer), true);
            continue;
        end if;
        v_chain := v_type.crm_base;
        v_edits := '[]';
        for v_entry in
            select e.entry from jsonb_array_elements(v_type.entries) with ordinality as e (entry, rank)
            where e.rank > v_seen and e.entry ->> 'number' is not null order by e.rank
        loop
            -- Emptied is not set to zero; only where zero was, it is the same.
            continue when (v_entry ->> 'empty')::boolean and v_chain <> 0;
            if not (v_entry ->> 'own')::boolean and (v_entry ->> 'number')::integer <> v_chain then
                v_edits := v_edits || jsonb_build_object(
                    'delta', (v_entry ->> 'number')::integer - v_chain, 'value', v_entry -> 'number',
                    'actor', v_entry -> 'actor', 'reason', 'crm_edit',
                    'event', concat_ws(':', p_contact_id, v_type.hubspot_property, v_entry ->> 'at',
                                       v_entry ->> 'number'));
            end if;
            v_chain := (v_entry ->> 'number')::integer;
        end loop;
        if v_edits <> '[]' then
            perform tallybook.book_remote_edits(p_contact_id, v_type.name, v_edits);
        end if;
        v_unreadable := v_type.number is null or (v_type.is_empty and v_chain <> 0);
        update tallybook.credit_balances b
        set crm_base = v_chain, crm_unreadable = v_unreadable,
            crm_unset = case when v_unreadable then b.crm_unset and v_chain = 0 else v_type.is_empty end
        where b.contact_id = p_contact_id and b.credit_type = v_type.name;
        if v_unreadable then
            perform tallybook.open_conflict('contact', p_contact_id, v_type.name, 'unreadable',
                (select b.balance::text from tallybook.credit_balances b
                 where b.contact_id = p_contact_id and b.credit_type = v_type.name),
                coalesce(v_type.odd_text, ''), '{}', false);
        end if;
    end loop;
end
$$;

drop function tallybook.own_moves(jsonb, integer, boolean, timestamptz);

-- What our own writes did to a number since the base, and when the last of them was. NULL: the history does not reach
-- back to the base.
create function tallybook.own_moves(
    p_entries jsonb, p_base integer, p_unset boolean, p_since timestamptz, p_history jsonb, p_stamp text,
    out moved integer, out newest_at timestamptz
)
language plpgsql immutable
set search_path = ''
as $$
declare
    v_seen integer := tallybook.entries_seen(p_entries, p_base, p_unset, p_since, p_history, p_stamp);
    v_chain integer := p_base;
    v_entry jsonb;
begin
    if v_seen is null then
        return;
    end if;
    moved := 0;
    for v_entry in
        select e.entry from jsonb_array_elements(p_entries) with ordinality as e (entry, rank)
        where e.rank > v_seen and e.entry ->> 'number' is not null order by e.rank
    loop
        continue when (v_entry ->> 'empty')::boolean and v_chain <> 0;
        if (v_entry ->> 'own')::boolean then
            moved := moved + (v_entry ->> 'number')::integer - v_chain;
            newest_at := (v_entry ->> 'at')::timestamptz;
        end if;
        v_chain := (v_entry ->> 'number')::integer;
    end loop;
end
$$;

-- Makes one contact's numbers HubSpot's, plus what was booked here since the hold began, plus what HubSpot had not been
-- told. p_answer: one of absorb_contacts's, with history. Gives its outcome.
create or replace function tallybook.restore_contact(p_answer jsonb)
returns text
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_hold record;
    v_contact tallybook.contacts;
    v_type record;
    v_before jsonb;
    v_was jsonb;
    v_ahead boolean;
    v_newest_at timestamptz;
    v_delta integer;
    v_not_in integer;
    v_missing integer;
    v_outcome text;
begin
    select * into v_hold from tallybook.hold_began();
    select * into v_contact from tallybook.contacts c
    where c.hubspot_id = p_answer ->> 'hubspot_id' and c.merged_into is null for no key update;
    if not found then
        return 'not_stored';
    elsif p_answer -> 'history' is null then
        return 'need_history';
    elsif (p_answer -> 'history' ->> 'late')::boolean then
        return 'again';
    end if;
    v_ahead := (p_answer ->> 'write_no')::bigint > v_contact.write_no and v_contact.crm_modified_at is not null;
    -- Once only: what is written below is no difference any more the next time.
    if exists (select from tallybook.audit_log a
               where a.contact_id = v_contact.id and a.action = 'contact.restored' and a.at >= v_hold.since) then
        v_hold := null;
    end if;
    select jsonb_object_agg(b.credit_type, jsonb_build_object('base', b.crm_base, 'unset', b.crm_unset,
        'unpushed', b.balance - coalesce(s.since, 0) - b.crm_base))
    into v_before
    from tallybook.credit_balances b
    left join lateral (select sum(e.delta)::integer as since from tallybook.credit_entries e
                       where e.contact_id = b.contact_id and e.credit_type = b.credit_type
                           and e.id > v_hold.last_entry) s on true
    where b.contact_id = v_contact.id;
    if v_ahead then
        update tallybook.contacts c set write_no = (p_answer ->> 'write_no')::bigint where c.id = v_contact.id;
        update tallybook.sync_conflicts s
        set resolved_at = pg_catalog.clock_timestamp(), resolved_by = 'system', resolution = 'reconciled'
        where s.object_type = 'contact' and s.object_id = v_contact.id and s.kind = 'ahead' and s.resolved_at is null;
        -- What the forgotten hour had added comes first: an edit of people's may have taken from it.
        for v_type in
            select b.credit_type, m.moved - (v_before -> b.credit_type ->> 'unpushed')::integer as added
            from tallybook.credit_balances b
            cross join lateral tallybook.own_moves(
                coalesce(p_answer -> 'history' -> 'balances' -> b.credit_type, '[]'), b.crm_base, b.crm_unset,
                v_contact.crm_modified_at, p_answer -> 'history', v_contact.crm_stamp) m
            where b.contact_id = v_contact.id and b.crm_base is not null and v_hold.since is not null
                and p_answer -> 'balances' ? b.credit_type
            order by b.credit_type
        loop
            continue when v_type.added <= 0 or v_type.added is null;
            perform tallybook.restore_number(v_contact.id, v_type.credit_type, null, v_type.added, null, null, 'first');
            v_before := jsonb_set(v_before, array[v_type.credit_type, 'added'], to_jsonb(v_type.added));
        end loop;
    end if;
    select a.outcome into v_outcome from tallybook.absorb_contacts(jsonb_build_array(p_answer), 'crm_link') a;
    if v_outcome <> 'absorbed' or v_hold.since is null then
        return v_outcome;
    end if;

    for v_type in
        select t.name, t.hubspot_property, p_answer -> 'balances' -> t.name as number,
            coalesce(p_answer -> 'history' -> 'balances' -> t.name, '[]') as entries,
            (select coalesce(sum(r.effect), 0)::integer from tallybook.repeated_effects(v_contact.id, t.name) r) as effect
        from tallybook.credit_types t
        join tallybook.credit_balances b on b.contact_id = v_contact.id and b.credit_type = t.name
        where t.hubspot_property is not null and not tallybook.is_frozen('contact', v_contact.id, t.name)
        order by t.name
    loop
        v_was := v_before -> v_type.name;
        v_missing := null;
        v_delta := 0;
        if not v_ahead and v_was ->> 'base' is not null and v_contact.created_at < v_hold.since then
            -- Our last write there is known here: nothing of what was decided later is in the number.
            v_not_in := v_type.effect;
        elsif not v_ahead or v_was ->> 'base' is null then
            -- Met since: what our writes had done before is in the number that was added.
            select m.newest_at into v_newest_at from tallybook.own_moves(v_type.entries, 0, true, null,
                p_answer -> 'history', null) m;
            v_not_in := tallybook.effects_not_in(v_contact.id, v_type.name, null, v_newest_at);
        else
            select m.moved - (v_was ->> 'unpushed')::integer, m.newest_at into v_delta, v_newest_at
            from tallybook.own_moves(v_type.entries, (v_was ->> 'base')::integer, (v_was ->> 'unset')::boolean,
                v_contact.crm_modified_at, p_answer -> 'history', v_contact.crm_stamp) m;
            v_missing := v_delta - v_type.effect;
            v_not_in := tallybook.effects_not_in(v_contact.id, v_type.name, v_missing, v_newest_at);
        end if;
        perform tallybook.restore_number(v_contact.id, v_type.name, v_type.number,
            v_delta + v_not_in - coalesce((v_was ->> 'added')::integer, 0), v_missing, v_not_in, 'then');
    end loop;
    perform tallybook.record('contact.restored', 'contact', v_contact.id, v_contact.id, 'restore', '{}', null);
    if tallybook.contact_is_dirty(v_contact.id) then
        perform tallybook.note_changes(array['contact'], array[v_contact.id]);
    end if;
    return v_outcome;
end
$$;

-- Binds this database to the portal the token opens, whatever either belonged to. Pushing is on hold until
-- `sync reconcile --after-restore` has compared the two. To another portal (`forgetting`), what is known of the old
-- one's records has to be forgotten first; until both are done nothing is pulled, since a first meeting would add
-- HubSpot's numbers to ours.
create or replace function tallybook.begin_rebind(p_portal_id bigint, p_time_zone text, p_epoch bigint, p_actor text)
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
    -- How its histories are to be read is true of a portal, whoever is bound to it.
    set value = jsonb_build_object('portal_id', p_portal_id, 'time_zone', p_time_zone,
                                   'database_id', tallybook.database_id())
        || case when (v_before ->> 'portal_id')::bigint = p_portal_id and v_before ? 'stamps_apart_ms'
                then jsonb_build_object('stamps_apart_ms', v_before -> 'stamps_apart_ms') else '{}' end
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

select tallybook.secure();
