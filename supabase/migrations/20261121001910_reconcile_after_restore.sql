-- A database restored from a backup is brought back to the truth: what it had pushed in the hour it has forgotten is in
-- HubSpot. Its bookings come back, and its numbers become HubSpot's, plus what was booked here since the restore.

select tallybook.begin_migration('20261121001910', 'reconcile_after_restore', '0.1.0');

-- Since when this database is on hold, and the last ledger entry of before. No row: it is not.
create function tallybook.hold_began(out since timestamptz, out last_entry bigint)
returns setof record
language sql stable
set search_path = ''
as $$
    select (s.value ->> 'since')::timestamptz, (s.value ->> 'last_entry')::bigint
    from tallybook.sync_state s where s.name = 'hold'
$$;

-- People this database has forgotten keep the ids they were given: a row for each whose record carries one of ours that
-- nobody here has. What is in it comes with the first meeting. [absorb_contacts's answers]
create function tallybook.remember_contacts(p_answers jsonb)
returns void
language sql volatile
set search_path = ''
as $$
    insert into tallybook.contacts (id)
    select tallybook.uuid_or_null(r ->> 'tallybook_id')
    from jsonb_array_elements(p_answers) r
    where tallybook.uuid_or_null(r ->> 'tallybook_id') is not null and not (r ->> 'archived')::boolean
        and not tallybook.is_known_record(r ->> 'hubspot_id')
        -- Signed up again since: that is the one who goes on.
        and not exists (select from tallybook.contacts c
                        where c.email = r -> 'texts' ->> 'email' and c.merged_into is null)
    order by 1
    on conflict do nothing
$$;

-- Links people both sides know and leaves our numbers and texts as they are: HubSpot's become the base, so that what
-- differs is pushed. For a database that is bound to another portal, or takes over from an old system. Never twice.
create function tallybook.keep_ours(p_answers jsonb)
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_linked uuid[];
begin
    perform from tallybook.contacts c
    where c.merged_into is null and (c.hubspot_id in (select r ->> 'hubspot_id' from jsonb_array_elements(p_answers) r)
        or c.email in (select r -> 'texts' ->> 'email' from jsonb_array_elements(p_answers) r)
        or c.id in (select tallybook.uuid_or_null(r ->> 'tallybook_id') from jsonb_array_elements(p_answers) r))
    order by c.id for no key update;
    with met as (
        update tallybook.contacts c
        set hubspot_id = r ->> 'hubspot_id', crm_unknown = false, crm_base = r -> 'texts', crm_stamp = r ->> 'stamp',
            crm_modified_at = (r ->> 'updated_at')::timestamptz,
            write_no = greatest(c.write_no, (r ->> 'write_no')::bigint)
        from jsonb_array_elements(p_answers) r
        where c.merged_into is null and c.erased_at is null and c.crm_modified_at is null
            and c.id = (select o.id from tallybook.contacts o
                        where o.merged_into is null and o.crm_modified_at is null
                            and (o.hubspot_id = r ->> 'hubspot_id'
                                 or (o.hubspot_id is null and (o.email = r -> 'texts' ->> 'email'
                                     or o.id = tallybook.uuid_or_null(r ->> 'tallybook_id'))))
                        order by o.hubspot_id is null, o.email is distinct from r -> 'texts' ->> 'email' limit 1)
            and not exists (select from tallybook.contacts o
                            where o.hubspot_id = r ->> 'hubspot_id' and o.merged_into is null and o.id <> c.id)
        returning c.id, r
    ), base as (
        update tallybook.credit_balances b
        set crm_base = (m.r -> 'balances' ->> b.credit_type)::integer, crm_unset = m.r -> 'empty' ? b.credit_type
        from met m
        where b.contact_id = m.id and m.r -> 'balances' ? b.credit_type
    )
    select array_agg(m.id order by m.id) into v_linked from met m;
    perform tallybook.note_changes(array_agg('contact'::text), array_agg(i))
    from unnest(v_linked) i where tallybook.contact_is_dirty(i) having count(*) > 0;
end
$$;

-- A credit for, or against, a change of a booking that is repeated here: HubSpot's number has that change already, so
-- together they change nothing. It stands without the booking, which it neither pays nor refunds.
create function tallybook.balance_out(p_booking tallybook.bookings, p_credit_type text, p_delta integer, p_at text)
returns void
language sql volatile
set search_path = ''
as $$
    insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, external_event)
    values ((p_booking).contact_id, p_credit_type, p_delta, 'restore', 'restore',
            concat_ws(':', 'restored', (p_booking).id, p_at, p_delta))
$$;

-- Repeats a cancellation with refund. Gives whether it could be.
create function tallybook.repeat_cancellation(p_booking tallybook.bookings, p_item jsonb)
returns boolean
language plpgsql volatile
as $$
declare
    v_entry record;
begin
    if (tallybook.cancel_found_booking((p_booking).id, true, 'restore', null, true, false)).refusal is not null then
        return false;
    end if;
    select e.credit_type, e.delta into v_entry from tallybook.credit_entries e
    where e.booking_id = (p_booking).id and e.delta > 0 and e.reverses_entry_id is not null
    order by e.id desc limit 1;
    if found then
        perform tallybook.balance_out(p_booking, v_entry.credit_type, -v_entry.delta, p_item ->> 'updated_at');
    end if;
    update tallybook.bookings b set cancelled_at = (p_item ->> 'cancelled_at')::timestamptz where b.id = (p_booking).id;
    return true;
end
$$;

-- Repeats that a cancellation was undone: the seat is taken again, and the credit spent again.
create function tallybook.repeat_reinstatement(p_booking tallybook.bookings, p_item jsonb)
returns boolean
language plpgsql volatile
as $$
declare
    v_type text := p_item ->> 'credit_type';
    v_answer tallybook.answer;
begin
    if v_type is not null then
        perform tallybook.balance_out(p_booking, v_type, 1, p_item ->> 'updated_at');
    end if;
    v_answer := tallybook.reinstate_booking((p_booking).id, 'restore');
    -- In a statement of its own, which sees what that one wrote.
    if v_answer.refusal is not null or (v_type is not null) <> exists (
            select from tallybook.credit_entries e
            where e.booking_id = (p_booking).id and e.credit_type = v_type and e.delta < 0 and e.reason = 'booking'
                and e.id > (select h.last_entry from tallybook.hold_began() h)) then
        raise exception using errcode = 'TB003';
    end if;
    return true;
exception when sqlstate 'TB003' then
    return false;
end
$$;

-- Repeats a move to another session, which gets one seat more where it is full by now.
create function tallybook.repeat_move(p_booking tallybook.bookings, p_exam_id uuid)
returns boolean
language plpgsql volatile
as $$
declare
    v_answer tallybook.answer;
begin
    update tallybook.mock_exams e set capacity = e.total_bookings + 1, updated_at = pg_catalog.clock_timestamp()
    where e.id = p_exam_id and e.total_bookings >= e.capacity;
    v_answer := tallybook.move_booking(null, null, null, null, (p_booking).id::text, p_exam_id::text, true, 'restore',
        null, null, null, null, false);
    if v_answer.refusal is not null then
        raise exception using errcode = 'TB003';
    end if;
    return true;
exception when sqlstate 'TB003' then
    return false;
end
$$;

-- What the forgotten hour decided about bookings that are here: repeated, unless they were changed here since, so that
-- the merge that follows finds nothing left to obey. What cannot be repeated is shown to a person. Gives how many
-- were. [absorb_bookings's answers]
create function tallybook.repeat_decisions(p_answers jsonb)
returns integer
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_since timestamptz := (select h.since from tallybook.hold_began() h);
    v_item jsonb;
    v_booking tallybook.bookings;
    v_exam record;
    v_field text;
    v_done boolean;
    v_number integer := 0;
begin
    perform tallybook.lock_parties(p_answers);
    for v_item in select r from jsonb_array_elements(p_answers) r order by tallybook.booking_of(r) loop
        select * into v_booking from tallybook.bookings b where b.id = tallybook.booking_of(v_item);
        continue when not found or (v_item ->> 'archived')::boolean or v_booking.updated_at > v_since
            or coalesce(v_booking.crm_modified_at, '-infinity') >= (v_item ->> 'updated_at')::timestamptz;
        v_done := null;
        select e.id, e.hubspot_id, e.mock_type, e.exam_on, e.starts_at, e.ends_at into v_exam from tallybook.mock_exams e
        where e.hubspot_id = v_item ->> 'mock_exam_hubspot_id' and e.mock_type = v_booking.mock_type
            and e.id <> v_booking.mock_exam_id and e.hubspot_id is distinct from v_booking.crm_mock_exam_hubspot_id;
        if v_exam.id is not null and v_booking.status <> 'Cancelled' and v_item ->> 'status' <> 'Cancelled' then
            v_done := tallybook.repeat_move(v_booking, v_exam.id);
            v_field := 'mock_exam';
        elsif v_item -> 'texts' -> 'is_active' = v_booking.crm_base -> 'is_active' then
            -- What differs was decided here before the backup, and only has to be told.
            null;
        elsif v_booking.status = 'Cancelled' and v_item ->> 'status' <> 'Cancelled' then
            v_done := tallybook.repeat_reinstatement(v_booking, v_item);
            v_field := 'is_active';
        elsif v_booking.status <> 'Cancelled' and v_item -> 'texts' ->> 'token_refunded' = 'true' then
            v_done := tallybook.repeat_cancellation(v_booking, v_item);
            v_field := 'is_active';
        end if;
        if v_done and v_exam.id is not null then
            -- A cancelled one, which was moved before, needs no seat there.
            update tallybook.bookings b
            set mock_exam_id = v_exam.id, exam_on = v_exam.exam_on, starts_at = v_exam.starts_at, ends_at = v_exam.ends_at,
                crm_mock_exam_hubspot_id = v_exam.hubspot_id
            where b.id = v_booking.id and (b.mock_exam_id = v_exam.id or b.status = 'Cancelled');
        end if;
        if v_done then
            v_number := v_number + 1;
        elsif not v_done then
            perform tallybook.open_conflict('booking', v_booking.id, v_field, 'after_restore', v_booking.status,
                v_item ->> 'status', jsonb_build_object('mock_exam', v_item -> 'mock_exam_hubspot_id'), false);
        end if;
    end loop;
    return v_number;
end
$$;

-- Bookings that came back although a rule stands against them now: a person has to decide which one stays.
create function tallybook.show_clashes(p_hubspot_ids text[])
returns void
language sql volatile
set search_path = ''
as $$
    select tallybook.open_conflict('booking', b.id, 'record', 'after_restore', null, b.hubspot_id,
        '{"problem": "clashes with a booking made since"}', false)
    from tallybook.bookings b
    where b.hubspot_id = any (p_hubspot_ids) and b.grandfathered and b.status <> 'Cancelled'
        and b.crm_base ->> 'tallybook_id' = b.id::text
    order by b.id
$$;

-- What our own writes did to a number since the base, and when the last of them was. NULL: the history does not reach
-- back to the base.
create function tallybook.own_moves(
    p_entries jsonb, p_base integer, p_unset boolean, p_since timestamptz,
    out moved integer, out newest_at timestamptz
)
language plpgsql immutable
set search_path = ''
as $$
declare
    v_seen integer := tallybook.entries_seen(p_entries, p_base, p_unset, p_since);
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

-- What each booking that came back, or was cancelled or reinstated again here, had cost or given back in the forgotten
-- hour, and when HubSpot heard of it.
create function tallybook.repeated_effects(p_contact_id uuid, p_credit_type text)
returns table (effect integer, told_at timestamptz)
language sql stable
set search_path = ''
as $$
    select -e.delta, case e.reason when 'restore' then b.crm_modified_at else b.created_at end
    from tallybook.credit_entries e
    join tallybook.bookings b on b.id = case e.reason when 'restore' then tallybook.uuid_or_null(split_part(e.external_event, ':', 2))
                                        else e.booking_id end
    where e.contact_id = p_contact_id and e.credit_type = p_credit_type
        and e.id > (select h.last_entry from tallybook.hold_began() h)
        and (e.reason = 'restore' and e.external_event like 'restored:%'
             or e.reason = 'import_opening' and b.crm_base ->> 'tallybook_id' = b.id::text)
$$;

-- The part of those effects that HubSpot's number does not have: contacts and bookings are pushed apart, so the last
-- bookings before the end may be there without their price. p_missing is by how much our own writes there differ from
-- the effects; NULL: that is unknown. A number is written within two seconds of its booking; what HubSpot heard of later
-- than that after the newest write is not in it, as far as the difference allows.
create function tallybook.effects_not_in(
    p_contact_id uuid, p_credit_type text, p_missing integer, p_newest_write_at timestamptz
)
returns integer
language sql stable
set search_path = ''
as $$
    select coalesce(sum(f.effect), 0)::integer
    from (select r.effect, row_number() over (partition by r.effect order by r.told_at desc) as rank
          from tallybook.repeated_effects(p_contact_id, p_credit_type) r
          where p_newest_write_at is null
              or r.told_at > p_newest_write_at + interval '2 seconds') f
    where p_missing is null or (sign(f.effect) = -sign(p_missing) and f.rank <= abs(p_missing))
$$;

-- Makes one contact's numbers HubSpot's, plus what was booked here since the hold began, plus what HubSpot had not been
-- told. p_answer: one of absorb_contacts's, with history. Gives its outcome.
create function tallybook.restore_contact(p_answer jsonb)
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
                v_contact.crm_modified_at) m
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
            select m.newest_at into v_newest_at from tallybook.own_moves(v_type.entries, 0, true, null) m;
            v_not_in := tallybook.effects_not_in(v_contact.id, v_type.name, null, v_newest_at);
        else
            select m.moved - (v_was ->> 'unpushed')::integer, m.newest_at into v_delta, v_newest_at
            from tallybook.own_moves(v_type.entries, (v_was ->> 'base')::integer, (v_was ->> 'unset')::boolean,
                v_contact.crm_modified_at) m;
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

-- Books what the forgotten hour had changed. A person is shown credits it took without a booking that came back, and
-- prices taken on top of HubSpot's number although it may have them: somebody was granted credits in that hour, too.
create function tallybook.restore_number(
    p_contact_id uuid, p_credit_type text, p_number jsonb, p_delta integer, p_missing integer, p_not_in integer,
    p_step text
)
returns void
language plpgsql volatile
as $$
begin
    if p_delta <> 0 then
        perform tallybook.book_remote_edits(p_contact_id, p_credit_type, jsonb_build_array(jsonb_build_object(
            'delta', p_delta, 'value', p_number, 'actor', 'restore', 'reason', 'restore',
            'event', concat_ws(':', p_contact_id, p_credit_type, 'restore', p_step, (select h.since from tallybook.hold_began() h)))));
    end if;
    if p_missing + p_not_in < 0 or (p_not_in <> 0 and p_missing + p_not_in <> 0) then
        perform tallybook.open_conflict('contact', p_contact_id, p_credit_type, 'after_restore',
            (select b.balance::text from tallybook.credit_balances b
             where b.contact_id = p_contact_id and b.credit_type = p_credit_type),
            p_number #>> '{}', jsonb_build_object('unexplained', p_missing + p_not_in, 'taken_on_top', -p_not_in), false);
    end if;
end
$$;

-- The contacts that have to be restored one by one although HubSpot knows no later write of ours to them: those a
-- booking came back for.
create function tallybook.contacts_with_effects()
returns setof text
language sql stable
set search_path = ''
as $$
    select distinct c.hubspot_id
    from tallybook.credit_entries e
    join tallybook.contacts c on c.id = e.contact_id and c.hubspot_id is not null and c.merged_into is null
    where e.id > (select h.last_entry from tallybook.hold_began() h)
        and e.reason in ('restore', 'import_opening')
        and not exists (select from tallybook.audit_log a
                        where a.contact_id = c.id and a.action = 'contact.restored'
                            and a.at >= (select h.since from tallybook.hold_began() h))
$$;

-- Everything was compared: pushing goes on, above HubSpot's epoch.
create function tallybook.end_restore(p_epoch bigint)
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
    insert into tallybook.sync_state (name, value) values ('epoch', '{"confirmed": 0, "next": 0}')
    on conflict (name) do nothing;
    update tallybook.sync_state
    set value = value || jsonb_build_object('confirmed', greatest(tallybook.known_epoch(), p_epoch))
    where name = 'epoch';
    perform tallybook.release_hold();
end
$$;

select tallybook.secure();
