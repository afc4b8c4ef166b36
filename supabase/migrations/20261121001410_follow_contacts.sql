-- People who become one, who go, and who have to be forgotten; and what staff decide where numbers and texts could not be
-- merged.

select tallybook.begin_migration('20261121001410', 'follow_contacts', '0.1.0');

insert into tallybook.application_rights (table_name, privilege)
select 'contact_aliases', p from unnest(array['update', 'delete']) p;

-- What people and other programs know a booking by never changes, except that erasing a person blanks its text; a
-- merge gives it another ordinal where the survivor has that one.
create or replace function tallybook.keep_booking_identity()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    if old.id = new.id and old.original_mock_exam_id = new.original_mock_exam_id
            and old.idempotency_key = new.idempotency_key
            and (old.ordinal = new.ordinal or old.contact_id <> new.contact_id)
            and (old.booking_id = new.booking_id
                 or exists (select from tallybook.contacts c
                            where c.id = new.contact_id and c.erased_at is not null)) then
        return new;
    end if;
    raise exception 'what identifies booking % never changes', old.id using errcode = 'restrict_violation';
end
$$;

-- Moves the loser's bookings. One that clashes with a live one of the survivor keeps its seat as an imported one would:
-- left out of the rules, listed for a person. Gives the ids of those. The caller holds both contacts' locks.
create function tallybook.move_bookings(p_loser_id uuid, p_survivor_id uuid)
returns uuid[]
language plpgsql volatile
set search_path = ''
as $$
declare
    v_booking tallybook.bookings;
    v_clashes boolean;
    v_clashing uuid[] := '{}';
    v_ordinal integer;
begin
    for v_booking in
        select * from tallybook.bookings b where b.contact_id = p_loser_id order by b.id for no key update
    loop
        v_clashes := v_booking.status <> 'Cancelled' and not v_booking.grandfathered and exists (
            select from tallybook.bookings o
            where o.contact_id = p_survivor_id and o.status <> 'Cancelled' and not o.grandfathered
                and (o.mock_exam_id = v_booking.mock_exam_id
                     or (o.mock_type = v_booking.mock_type and o.exam_on = v_booking.exam_on)
                     or (o.starts_at < v_booking.ends_at and o.ends_at > v_booking.starts_at)));
        select case when bool_or(o.ordinal = v_booking.ordinal) then max(o.ordinal) + 1 else v_booking.ordinal end
        into v_ordinal from tallybook.bookings o
        where o.contact_id = p_survivor_id and o.original_mock_exam_id = v_booking.original_mock_exam_id;
        update tallybook.bookings b
        set contact_id = p_survivor_id, ordinal = coalesce(v_ordinal, b.ordinal),
            grandfathered = b.grandfathered or v_clashes, updated_at = pg_catalog.clock_timestamp()
        where b.id = v_booking.id;
        if v_clashes then
            v_clashing := v_clashing || v_booking.id;
        end if;
    end loop;
    return v_clashing;
end
$$;

-- Makes two of our contacts one: credits by a pair of entries, open holds, bookings, everything the loser was known by.
-- A conflict shows both numbers, so that a person can undo the addition. The caller holds both contacts' locks.
create function tallybook.merge_contact(p_loser_id uuid, p_survivor_id uuid, p_actor text)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
    v_now timestamptz := pg_catalog.clock_timestamp();
    v_loser tallybook.contacts;
    v_numbers jsonb;
    v_held jsonb;
    v_bookings uuid[];
    v_clashing uuid[];
begin
    perform tallybook.expire_overdue_holds(p_loser_id, v_now);
    select * into v_loser from tallybook.contacts c where c.id = p_loser_id;
    select coalesce(jsonb_object_agg(b.credit_type, jsonb_build_array(coalesce(s.balance, 0), b.balance)), '{}'),
        coalesce(jsonb_object_agg(b.credit_type, b.held) filter (where b.held > 0), '{}')
    into v_numbers, v_held
    from tallybook.credit_balances b
    left join tallybook.credit_balances s on s.contact_id = p_survivor_id and s.credit_type = b.credit_type
    where b.contact_id = p_loser_id and b.balance > 0;

    insert into tallybook.credit_balances (contact_id, credit_type)
    select p_survivor_id, n.key from jsonb_each(v_numbers) n order by n.key
    on conflict on constraint credit_balances_pkey do nothing;
    -- What is set aside goes with its hold: down here before the credits leave, up there once they have come.
    update tallybook.credit_balances b set held = 0 where b.contact_id = p_loser_id and b.held > 0;
    insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, external_event)
    select x.contact_id, n.key, x.delta, x.reason, p_actor, concat_ws(':', p_loser_id, n.key, x.reason)
    from jsonb_each(v_numbers) n
    cross join lateral (values (1, p_loser_id, -(n.value ->> 1)::integer, 'merge_out'),
                               (2, p_survivor_id, (n.value ->> 1)::integer, 'merge_in')) as x (rank, contact_id, delta, reason)
    order by n.key, x.rank;
    update tallybook.credit_holds h set contact_id = p_survivor_id
    where h.contact_id = p_loser_id and h.closed_at is null;
    update tallybook.credit_balances b set held = b.held + (v_held ->> b.credit_type)::integer
    where b.contact_id = p_survivor_id and v_held ? b.credit_type;

    select coalesce(array_agg(b.id), '{}') into v_bookings from tallybook.bookings b where b.contact_id = p_loser_id;
    v_clashing := tallybook.move_bookings(p_loser_id, p_survivor_id);

    insert into tallybook.contact_aliases (kind, value, contact_id)
    select a.kind, a.value, p_survivor_id
    from (select o.kind, o.value from tallybook.contact_aliases o where o.contact_id = p_loser_id
          union values ('hubspot_id', v_loser.hubspot_id), ('student_id', v_loser.student_id),
                       ('email', v_loser.email)) a
    where a.value is not null
    order by a.kind, a.value
    on conflict do nothing;
    delete from tallybook.contact_aliases a where a.contact_id = p_loser_id;
    -- A repeat resolves to the survivor: there it has to find that the request was answered.
    insert into tallybook.idempotency_keys
        (credential, contact_id, route, key, fingerprint, outcome, data, created_at)
    select k.credential, p_survivor_id, k.route, k.key, k.fingerprint, k.outcome, k.data, k.created_at
    from tallybook.idempotency_keys k where k.contact_id = p_loser_id
    on conflict do nothing;
    delete from tallybook.idempotency_keys k where k.contact_id = p_loser_id;
    update tallybook.contacts c
    set merged_into = p_survivor_id, session_epoch = c.session_epoch + 1, crm_unread = false, updated_at = v_now
    where c.id = p_loser_id;

    update tallybook.sync_conflicts s
    set resolved_at = v_now, resolved_by = p_actor, resolution = 'merged'
    where s.object_type = 'contact' and s.object_id = p_loser_id and s.resolved_at is null;
    perform tallybook.open_conflict('contact', p_survivor_id, coalesce(v_loser.hubspot_id, p_loser_id::text), 'merged',
        (select string_agg(n.key || ' ' || (n.value ->> 0), ', ' order by n.key) from jsonb_each(v_numbers) n),
        (select string_agg(n.key || ' ' || (n.value ->> 1), ', ' order by n.key) from jsonb_each(v_numbers) n),
        jsonb_build_object('loser', p_loser_id, 'numbers', v_numbers, 'clashing_bookings', v_clashing), false)
    where v_numbers <> '{}' or v_clashing <> '{}';
    perform tallybook.record('contact.merged', 'contact', p_survivor_id, p_survivor_id, p_actor,
        jsonb_build_object('loser', p_loser_id, 'numbers', v_numbers), null);
    delete from tallybook.outbox o where o.object_type = 'contact' and o.object_id = p_loser_id;
    perform tallybook.note_changes(
        array['contact'] || array_fill('booking'::text, array[cardinality(v_bookings)]), p_survivor_id || v_bookings);
end
$$;

-- The numbers of a record that others have become, against those of our contact for the one whose values it shows. An
-- edit made before the merge is found as far as the stamp tells what our own last write was; a number that came from
-- the other record, because this one had none, is no edit: it moves with the other contact.
create function tallybook.restart_numbers(
    p_answer jsonb, p_survivor_id uuid, p_is_primary boolean, p_losers uuid[], p_first_reason text
)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
    v_type record;
    v_carried_over boolean;
    v_known integer;
begin
    for v_type in
        select t.name, t.hubspot_property, (p_answer -> 'balances' ->> t.name)::integer as number,
            p_answer -> 'empty' ? t.name as is_empty, b.crm_base, coalesce(b.crm_unset, true) as is_unset,
            case when c.crm_stamp is distinct from p_answer ->> 'stamp' and (p_answer ->> 'write_no')::bigint <= c.write_no
                then substring(p_answer ->> 'stamp' from ' ' || t.hubspot_property || '=([0-9]{1,9})(?: |$)')::integer
                end as written
        from tallybook.credit_types t
        join tallybook.contacts c on c.id = p_survivor_id
        left join tallybook.credit_balances b on b.contact_id = c.id and b.credit_type = t.name
        where p_answer -> 'balances' ? t.name and not tallybook.is_frozen('contact', c.id, t.name)
        order by t.name
    loop
        insert into tallybook.credit_balances (contact_id, credit_type) values (p_survivor_id, v_type.name)
        on conflict on constraint credit_balances_pkey do nothing;
        v_carried_over := (not p_is_primary or v_type.is_unset) and exists (
            select from tallybook.credit_balances o
            where o.contact_id = any (case when p_is_primary then p_losers else p_losers || p_survivor_id end)
                and o.credit_type = v_type.name and o.crm_base = v_type.number);
        v_known := case when v_carried_over then v_type.number
                        when p_is_primary then coalesce(v_type.written, v_type.crm_base) end;
        if v_type.is_empty and coalesce(v_known, 0) <> 0 then
            continue;
        end if;
        if v_type.number <> coalesce(v_known, 0) then
            perform tallybook.book_remote_edits(p_survivor_id, v_type.name, jsonb_build_array(jsonb_build_object(
                'delta', v_type.number - coalesce(v_known, 0), 'value', v_type.number, 'actor', 'hubspot',
                'reason', case when v_known is null then p_first_reason else 'crm_edit' end,
                'event', concat_ws(':', p_survivor_id, v_type.hubspot_property, p_answer ->> 'updated_at',
                                   v_type.number))));
        end if;
        update tallybook.credit_balances b
        set crm_base = v_type.number, crm_unset = v_type.is_empty, crm_unreadable = false
        where b.contact_id = p_survivor_id and b.credit_type = v_type.name;
    end loop;
end
$$;

-- Records of HubSpot's that have become one, with a new id: our contact for the one whose values it shows goes on under
-- the new id, the others are merged into it. Nothing when that was done before. The caller holds the contacts' locks.
create function tallybook.follow_merge(p_answer jsonb, p_first_reason text)
returns void
language plpgsql volatile
set search_path = ''
as $$
declare
    v_email text := p_answer -> 'texts' ->> 'email';
    v_ids uuid[];
    v_survivor tallybook.contacts;
    v_loser_id uuid;
begin
    -- Of those HubSpot merged the first is the one that was kept; its e-mail is surer, since lists may be sorted.
    select array_agg(c.id order by c.hubspot_id = p_answer ->> 'hubspot_id' desc,
                     coalesce(c.email = v_email, false) desc, x.rank)
    into v_ids
    from (select m.id, m.rank from jsonb_array_elements_text(p_answer -> 'merged_ids') with ordinality as m (id, rank)
          union select p_answer ->> 'hubspot_id', 0) x
    join tallybook.contacts c on c.hubspot_id = x.id and c.merged_into is null and c.erased_at is null;
    if v_ids is null then
        return;
    end if;
    select * into v_survivor from tallybook.contacts c where c.id = v_ids[1];
    if cardinality(v_ids) > 1 or v_survivor.hubspot_id <> p_answer ->> 'hubspot_id' then
        perform tallybook.restart_numbers(p_answer, v_survivor.id,
            v_survivor.hubspot_id = p_answer ->> 'hubspot_id' or v_survivor.email = v_email
                or (v_email is null and v_survivor.hubspot_id = p_answer -> 'merged_ids' ->> 0),
            v_ids[2:], p_first_reason);
        foreach v_loser_id in array v_ids[2:] loop
            perform tallybook.merge_contact(v_loser_id, v_survivor.id, 'hubspot');
        end loop;
        update tallybook.contacts c
        set hubspot_id = p_answer ->> 'hubspot_id', crm_stamp = p_answer ->> 'stamp',
            crm_modified_at = (p_answer ->> 'updated_at')::timestamptz,
            write_no = greatest(c.write_no, (p_answer ->> 'write_no')::bigint)
        where c.id = v_survivor.id;
        update tallybook.bookings b set crm_contact_hubspot_id = p_answer ->> 'hubspot_id'
        where b.contact_id = v_survivor.id and b.crm_contact_hubspot_id is not null;
        perform tallybook.note_changes(array['contact'], array[v_survivor.id]);
    end if;
    insert into tallybook.contact_aliases (kind, value, contact_id)
    select 'hubspot_id', m.id, v_survivor.id from jsonb_array_elements_text(p_answer -> 'merged_ids') m (id)
    where m.id <> p_answer ->> 'hubspot_id' order by m.id
    on conflict do nothing;
end
$$;

-- Records HubSpot does not have any more, and not archived either: nobody signs in; where something is at stake, a person
-- decides. Those it has deleted for privacy, as a hint says, are forgotten here too.
create function tallybook.mark_contacts_deleted(p_hubspot_ids text[])
returns void
language plpgsql volatile
set search_path = ''
set lock_timeout = '10s'
as $$
declare
    v_contact record;
begin
    perform from tallybook.contacts c
    where c.hubspot_id = any (p_hubspot_ids) and c.merged_into is null
    order by c.id for no key update;
    for v_contact in
        select c.id, c.hubspot_id from tallybook.contacts c
        where c.hubspot_id = any (p_hubspot_ids) and c.merged_into is null and c.erased_at is null
        order by c.id
    loop
        if exists (select from tallybook.inbox i where i.object_type = 'contact' and i.hubspot_id = v_contact.hubspot_id
                       and i.subscription_type like '%privacyDeletion') then
            perform tallybook.erase_contact(v_contact.id, 'deleted for privacy in HubSpot', 'hubspot');
            continue;
        end if;
        update tallybook.contacts c set archived_at = coalesce(c.archived_at, pg_catalog.clock_timestamp())
        where c.id = v_contact.id;
        perform tallybook.open_conflict('contact', v_contact.id, '', 'deleted', concat_ws(', ', b.credits, n.bookings),
            null, '{}', false)
        from (select string_agg(o.credit_type || ' ' || o.balance, ', ' order by o.credit_type) as credits
              from tallybook.credit_balances o where o.contact_id = v_contact.id and o.balance > 0) b,
             (select 'live bookings ' || nullif(count(*), 0) as bookings
              from tallybook.bookings o where o.contact_id = v_contact.id and o.status = 'Active') n
        where b.credits is not null or n.bookings is not null;
    end loop;
end
$$;

-- Forgets a person: names, addresses, student IDs, free texts, what HubSpot last showed. Entries, bookings and UUIDs
-- stay, so every number can still be proved; a booking's text keeps its type and date.
create function tallybook.erase_contact(p_contact_id uuid, p_reason text, p_actor text)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_ids uuid[];
    v_records text[];
    v_bookings uuid[];
    v_now timestamptz;
begin
    -- Everybody who was merged into this person is the same person.
    with recursive person (id) as (
        select c.id from tallybook.contacts c where c.id = p_contact_id
        union
        select c.id from person p join tallybook.contacts c on c.merged_into = p.id
    )
    select array_agg(p.id) into v_ids from person p;
    if v_ids is null then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    end if;
    perform from tallybook.contacts c where c.id = any (v_ids) order by c.id for no key update;
    if (select c.erased_at is not null from tallybook.contacts c where c.id = p_contact_id) then
        return tallybook.grant_answer('already', jsonb_build_object('id', p_contact_id));
    end if;
    v_now := pg_catalog.clock_timestamp();
    select array_agg(x.id) into v_records from (
        select c.hubspot_id as id from tallybook.contacts c where c.id = any (v_ids)
        union select a.value from tallybook.contact_aliases a where a.kind = 'hubspot_id' and a.contact_id = any (v_ids)
    ) x where x.id is not null;

    update tallybook.contacts c
    set email = null, student_id = null, firstname = null, lastname = null, ndecc_exam_on = null,
        crm_base = '{}', crm_sent = '{}', crm_written = '{}', crm_unread = false,
        session_epoch = c.session_epoch + 1, erased_at = v_now, archived_at = coalesce(c.archived_at, v_now),
        updated_at = v_now
    where c.id = any (v_ids);
    delete from tallybook.contact_aliases a where a.contact_id = any (v_ids) and a.kind <> 'hubspot_id';
    v_bookings := tallybook.erase_bookings(v_ids, v_now);

    update tallybook.audit_details d set details = '{}' where d.contact_id = any (v_ids);
    update tallybook.credit_uses u set metadata = null where u.contact_id = any (v_ids) and u.metadata is not null;
    update tallybook.hold_uses u set metadata = '{}' where u.contact_id = any (v_ids);
    delete from tallybook.idempotency_keys k where k.contact_id = any (v_ids);
    delete from tallybook.login_challenges l where l.contact_id = any (v_ids);
    update tallybook.sync_conflicts s
    set ours = null, theirs = null, details = '{}', resolution = 'erased',
        resolved_at = coalesce(s.resolved_at, v_now), resolved_by = coalesce(s.resolved_by, p_actor)
    where s.object_type = 'contact' and s.object_id = any (v_ids)
        or s.object_type = 'booking' and s.object_id = any (v_bookings);
    perform tallybook.record('contact.erased', 'contact', p_contact_id, p_contact_id, p_actor,
        jsonb_build_object('contacts', cardinality(v_ids), 'bookings', cardinality(v_bookings)),
        jsonb_build_object('reason', p_reason));

    delete from tallybook.outbox o where o.object_type = 'contact' and o.object_id = any (v_ids);
    update tallybook.outbox o set last_error = null where o.object_type = 'booking' and o.object_id = any (v_bookings);
    perform tallybook.note_changes(array_agg('booking'::text), array_agg(b.id))
    from tallybook.bookings b where b.id = any (v_bookings) and b.hubspot_id is not null having count(*) > 0;
    delete from tallybook.inbox i where i.object_type = 'contact' and i.hubspot_id = any (v_records);
    return tallybook.grant_answer('ok', jsonb_build_object(
        'id', p_contact_id, 'contacts', cardinality(v_ids), 'bookings', cardinality(v_bookings),
        'live_bookings', (select count(*) from tallybook.bookings b where b.id = any (v_bookings) and b.status = 'Active')));
end
$$;

-- Their bookings under texts without the student: the first 8 hex of the contact's UUID stand in. Gives all of them.
create function tallybook.erase_bookings(p_contact_ids uuid[], p_now timestamptz)
returns uuid[]
language plpgsql volatile
set search_path = ''
as $$
declare
    v_booking tallybook.bookings;
    v_ids uuid[] := '{}';
    v_text text;
    v_taken integer;
begin
    for v_booking in
        select * from tallybook.bookings b where b.contact_id = any (p_contact_ids) order by b.id for no key update
    loop
        v_text := v_booking.mock_type || '-' || left(v_booking.contact_id::text, 8)
            -- An imported text may be of any shape.
            || coalesce(substring(v_booking.booking_id from '-[A-Z][a-z]+ [0-9]{1,2}, [0-9]{4}'),
                        to_char(v_booking.exam_on, '-FMMonth FMDD, YYYY'));
        v_taken := 1;
        while exists (select from tallybook.bookings o where o.id <> v_booking.id and o.booking_id =
                (v_text || case when v_taken > 1 then ' (' || v_taken || ')' else '' end) collate "C") loop
            v_taken := v_taken + 1;
        end loop;
        update tallybook.bookings b
        set booking_id = v_text || case when v_taken > 1 then ' (' || v_taken || ')' else '' end,
            cancel_reason = null, crm_base = b.crm_base - 'booking_id', crm_sent = b.crm_sent - 'booking_id',
            updated_at = p_now
        where b.id = v_booking.id;
        v_ids := v_ids || v_booking.id;
    end loop;
    return v_ids;
end
$$;

-- Sets a text or date of a contact as a person decided. NULL: done; else the field and what is wrong with the text.
create function tallybook.set_contact_text(p_contact_id uuid, p_field text, p_text text)
returns text
language plpgsql volatile
set search_path = ''
as $$
declare
    v_text text := nullif(btrim(p_text), '');
begin
    if p_field = 'email' then
        v_text := lower(v_text);
        if v_text is null or v_text !~ '^[^@[:space:]]+@[^@[:space:]]+$' then
            return 'is no e-mail address';
        elsif exists (select from tallybook.contacts c
                      where c.email = v_text and c.merged_into is null and c.id <> p_contact_id) then
            return 'is another contact''s';
        end if;
    elsif p_field = 'student_id' then
        v_text := upper(v_text);
        if v_text !~ '^[A-Z0-9]{1,32}$' then
            return 'must be 1 to 32 letters or digits';
        end if;
    elsif p_field = 'ndecc_exam_date' then
        begin
            v_text := v_text::date::text;
        exception when invalid_datetime_format or datetime_field_overflow then
            return 'is no date';
        end;
    end if;
    insert into tallybook.contact_aliases (kind, value, contact_id)
    select 'student_id', c.student_id, c.id from tallybook.contacts c
    where c.id = p_contact_id and p_field = 'student_id' and c.student_id <> coalesce(v_text, '')
    on conflict do nothing;
    update tallybook.contacts c
    set email = case when p_field = 'email' then v_text else c.email end,
        student_id = case when p_field = 'student_id' then v_text else c.student_id end,
        firstname = case when p_field = 'firstname' then v_text else c.firstname end,
        lastname = case when p_field = 'lastname' then v_text else c.lastname end,
        ndecc_exam_on = case when p_field = 'ndecc_exam_date' then v_text::date else c.ndecc_exam_on end,
        session_epoch = c.session_epoch + (
            (p_field = 'email' and c.email is distinct from v_text and c.email is not null)
            or (p_field = 'student_id' and c.student_id is distinct from v_text and c.student_id is not null))::integer,
        updated_at = pg_catalog.clock_timestamp()
    where c.id = p_contact_id;
    return null;
end
$$;

-- A balance as a person decided: NULL leaves ours. `p_base`: the number HubSpot shows. Gives a refusal or NULL.
create function tallybook.settle_balance(
    p_contact_id uuid, p_credit_type text, p_number text, p_base integer, p_unreadable boolean, p_actor text
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
as $$
declare
    v_balance record;
    v_most integer := (select t.largest_balance from tallybook.credit_types t where t.name = p_credit_type);
begin
    perform tallybook.expire_overdue_holds(p_contact_id, pg_catalog.clock_timestamp());
    if p_number is not null and (p_number !~ '^[0-9]{1,9}$' or p_number::integer > v_most) then
        return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'value',
            'problem', 'must be a whole number from 0 to ' || v_most));
    end if;
    select b.balance, b.held into v_balance from tallybook.credit_balances b
    where b.contact_id = p_contact_id and b.credit_type = p_credit_type;
    if p_number::integer < v_balance.held then
        return tallybook.refuse('BALANCE_TOO_LOW',
            jsonb_build_object('held', v_balance.held, 'balance', v_balance.balance));
    end if;
    insert into tallybook.credit_balances (contact_id, credit_type, crm_base, crm_unset)
    values (p_contact_id, p_credit_type, p_base, true)
    on conflict on constraint credit_balances_pkey do update
        set crm_base = excluded.crm_base, crm_unset = tallybook.credit_balances.crm_unset and excluded.crm_base = 0;
    update tallybook.credit_balances b set crm_unreadable = p_unreadable
    where b.contact_id = p_contact_id and b.credit_type = p_credit_type;
    insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)
    select p_contact_id, p_credit_type, p_number::integer - coalesce(v_balance.balance, 0), 'conflict_resolved', p_actor
    where p_number::integer <> coalesce(v_balance.balance, 0);
    return null;
end
$$;

-- Takes back what a merge has added, as far as it is still there.
create function tallybook.undo_addition(p_conflict tallybook.sync_conflicts, p_actor text)
returns void
language plpgsql volatile
set search_path = ''
as $$
begin
    perform tallybook.expire_overdue_holds(p_conflict.object_id, pg_catalog.clock_timestamp());
    insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)
    select b.contact_id, b.credit_type, -least((n.value ->> 1)::integer, b.balance - b.held), 'conflict_resolved', p_actor
    from jsonb_each(p_conflict.details -> 'numbers') n
    join tallybook.credit_balances b on b.contact_id = p_conflict.object_id and b.credit_type = n.key
    where least((n.value ->> 1)::integer, b.balance - b.held) > 0
    order by b.credit_type;
end
$$;

-- What a person's choice about a contact means. Refuses before it writes.
create function tallybook.resolve_contact_conflict(
    p_conflict tallybook.sync_conflicts, p_choice text, p_value text, p_actor text, p_reason text
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
as $$
declare
    v_contact tallybook.contacts;
    v_base integer;
    v_answer tallybook.answer;
    v_problem text;
    v_holder uuid := tallybook.uuid_or_null(p_conflict.details ->> 'holder');
begin
    perform from tallybook.contacts c where c.id in (p_conflict.object_id, v_holder) order by c.id for no key update;
    select * into v_contact from tallybook.contacts c where c.id = p_conflict.object_id;
    -- Read again under the lock: an answer of HubSpot's may have renewed or closed it meanwhile.
    select * into p_conflict from tallybook.sync_conflicts s where s.id = p_conflict.id;
    if p_conflict.resolved_at is not null then
        return tallybook.refuse('CONFIRMATION_STALE', jsonb_build_object(
            'resolved_by', p_conflict.resolved_by, 'resolution', p_conflict.resolution));
    end if;

    if p_choice = 'dismiss' and not p_conflict.freezes then
        null;
    elsif p_conflict.kind in ('unreadable', 'below_zero', 'gap')
            and exists (select from tallybook.credit_types t where t.name = p_conflict.field) then
        select b.crm_base into v_base from tallybook.credit_balances b
        where b.contact_id = p_conflict.object_id and b.credit_type = p_conflict.field;
        v_base := case when p_conflict.kind = 'gap' then coalesce((p_conflict.details ->> 'theirs')::integer, v_base)
                       else coalesce(v_base, 0) end;
        if p_choice not in ('ours', 'theirs', 'value') or (p_choice = 'theirs' and p_conflict.kind = 'unreadable') then
            return tallybook.no_such_choice(
                case when p_conflict.kind = 'unreadable' then 'ours or value' else 'ours, theirs or value' end);
        end if;
        v_answer := tallybook.settle_balance(p_conflict.object_id, p_conflict.field,
            case p_choice when 'value' then btrim(p_value) when 'theirs' then v_base::text end, v_base,
            p_conflict.kind = 'unreadable', p_actor);
        if v_answer.refusal is not null then
            return v_answer;
        end if;
    elsif p_conflict.kind in ('unreadable', 'both_changed') and p_choice in ('ours', 'theirs', 'value') then
        if p_conflict.kind = 'unreadable' and p_choice <> 'value' then
            return tallybook.no_such_choice('value or dismiss');
        end if;
        if p_choice = 'theirs' and v_holder is not null then
            perform tallybook.merge_contact(v_holder, p_conflict.object_id, p_actor)
            from tallybook.contacts c where c.id = v_holder and c.merged_into is null and c.hubspot_id is null;
        end if;
        v_problem := tallybook.set_contact_text(p_conflict.object_id, p_conflict.field,
            case p_choice when 'ours' then p_conflict.ours when 'theirs' then p_conflict.theirs else p_value end);
        if v_problem is not null then
            return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', p_conflict.field, 'problem', v_problem));
        end if;
    elsif p_conflict.kind = 'merged' and (p_choice = 'theirs' or (p_choice = 'value' and p_value = 'undo')) then
        perform tallybook.undo_addition(p_conflict, p_actor);
    elsif p_conflict.kind = 'deleted' and p_choice = 'ours' then
        -- Made again there: nothing was ever shown of the new record.
        insert into tallybook.contact_aliases (kind, value, contact_id)
        select 'hubspot_id', v_contact.hubspot_id, v_contact.id where v_contact.hubspot_id is not null
        on conflict do nothing;
        update tallybook.contacts c
        set hubspot_id = null, archived_at = null, crm_base = '{}', crm_sent = '{}', crm_written = '{}',
            crm_stamp = null, crm_modified_at = null, crm_unread = false, crm_unknown = false
        where c.id = v_contact.id;
        update tallybook.credit_balances b set crm_base = 0, crm_unset = true, crm_unreadable = false
        from tallybook.credit_types t
        where b.contact_id = v_contact.id and t.name = b.credit_type and t.hubspot_property is not null;
    elsif not (p_conflict.kind in ('merged', 'deleted') and p_choice in ('ours', 'dismiss')) then
        return tallybook.no_such_choice(case p_conflict.kind
            when 'merged' then 'ours (keep the sum), theirs (undo the addition) or dismiss'
            when 'deleted' then 'ours (make it again) or dismiss'
            when 'ahead' then 'the reconciliation after a restore'
            else 'ours, theirs, value or dismiss' end);
    end if;
    perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
    perform tallybook.note_changes(array['contact'], array[p_conflict.object_id]);
    return tallybook.grant_answer('ok', '{}');
end
$$;

select tallybook.secure();
