-- Metered actions: other programs check, charge, hold, capture, release and refund credits. Each is one decision under
-- the contact's lock, and gives back overdue holds first. What a hold set aside is nobody's to spend, bookings included.

select tallybook.begin_migration('20261121002000', 'create_metered_actions', '0.1.0');

-- A hold of several actions is several rows under one `group_id`, closed together.
alter table tallybook.credit_holds
    add column group_id uuid not null default gen_random_uuid(),
    add column action text,
    add column quantity integer;
create index credit_holds_group_idx on tallybook.credit_holds (group_id);
create index credit_entries_hold_idx on tallybook.credit_entries (hold_id) where hold_id is not null;
create index credit_holds_overdue_idx on tallybook.credit_holds (expires_at) where closed_at is null;

-- What an entry or a hold was for, in the other program's words. Beside the ledger, because it may have to be erased.
create table tallybook.credit_uses (
    entry_id bigint not null,
    contact_id uuid not null,
    action text not null,
    quantity integer not null,
    metadata jsonb,
    constraint credit_uses_pkey primary key (entry_id),
    constraint credit_uses_entry_id_fkey foreign key (entry_id) references tallybook.credit_entries (id),
    constraint credit_uses_contact_id_fkey foreign key (contact_id) references tallybook.contacts (id)
);

create index credit_uses_contact_idx on tallybook.credit_uses (contact_id, action, entry_id);

create table tallybook.hold_uses (
    group_id uuid not null,
    contact_id uuid not null,
    metadata jsonb not null,
    constraint hold_uses_pkey primary key (group_id),
    constraint hold_uses_contact_id_fkey foreign key (contact_id) references tallybook.contacts (id)
);

insert into tallybook.application_rights (table_name, privilege)
select t, p from unnest(array['credit_uses', 'hold_uses']) t, unnest(array['insert', 'update']) p;

alter table tallybook.contact_aliases drop constraint contact_aliases_kind_is_known;
alter table tallybook.contact_aliases add constraint contact_aliases_kind_is_known
    check (kind in ('hubspot_id', 'student_id', 'email', 'external_id'));

-- What is held of a balance at this moment: a hold that is over holds nothing, whether or not anybody has swept it.
create function tallybook.held_now(p_balance tallybook.credit_balances)
returns integer
language sql stable
as $$
    select case when p_balance.held = 0 then 0 else p_balance.held - coalesce((
        select sum(h.credits)::integer from tallybook.credit_holds h
        where h.contact_id = p_balance.contact_id and h.credit_type = p_balance.credit_type
            and h.closed_at is null and h.expires_at <= pg_catalog.clock_timestamp()), 0) end
$$;

create or replace function tallybook.available_credits(p_contact_id uuid)
returns jsonb
language sql stable
as $$
    select coalesce(jsonb_object_agg(t.name, coalesce(b.balance - tallybook.held_now(b), 0)), '{}')
    from tallybook.credit_types t
    left join tallybook.credit_balances b on b.credit_type = t.name and b.contact_id = p_contact_id
    where b.contact_id is not null or t.hubspot_property is null
$$;

create or replace function tallybook.check_credits(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text, p_mock_type text, p_source text
)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
    v_contact record;
    v_pays text[];
    v_retired boolean;
    v_credits integer[];
    v_known boolean;
    v_available integer;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    select t.pays_with, t.retired_at is not null into v_pays, v_retired
    from tallybook.mock_types t where t.name = p_mock_type;
    if v_pays is null then
        return tallybook.refuse('INVALID_MOCK_TYPE', jsonb_build_object('field', 'mock_type', 'allowed',
            (select jsonb_agg(t.name order by t.name) from tallybook.mock_types t where t.retired_at is null)));
    end if;
    select array_agg(coalesce(b.balance - tallybook.held_now(b), 0) order by u.rank),
        bool_and(b.contact_id is not null or t.hubspot_property is null)
    into v_credits, v_known
    from unnest(v_pays) with ordinality as u (name, rank)
    join tallybook.credit_types t on t.name = u.name
    left join tallybook.credit_balances b on b.contact_id = v_contact_id and b.credit_type = u.name;
    select c.hubspot_id, c.student_id, c.email, c.firstname, c.lastname, c.ndecc_exam_on into v_contact
    from tallybook.contacts c where c.id = v_contact_id;
    if not v_known then
        return tallybook.refuse('BALANCE_UNKNOWN', jsonb_build_object('hubspot_id', v_contact.hubspot_id));
    end if;
    select sum(n) into v_available from unnest(v_credits) n;
    return tallybook.grant_answer('ok', jsonb_build_object(
        'eligible', v_available > 0 and not v_retired,
        'available_credits', v_available,
        'credit_breakdown', jsonb_build_object(
            'specific_credits', v_credits[1], 'shared_credits', v_available - v_credits[1]),
        'contact_id', coalesce(v_contact.hubspot_id, v_contact_id::text),
        'id', v_contact_id,
        'student_name', nullif(btrim(concat_ws(' ', v_contact.firstname, v_contact.lastname)), ''),
        'ndecc_exam_date', v_contact.ndecc_exam_on,
        'source', p_source,
        'as_of', tallybook.instant(pg_catalog.clock_timestamp())
    ) || case when v_available > 0 and not v_retired then '{}' else jsonb_build_object('error_message',
        case when v_retired then p_mock_type || ' can no longer be booked.'
             else 'You have no credits for ' || p_mock_type || '.' end) end);
end
$$;

create or replace function tallybook.show_credits(p_contact_id uuid, p_epoch integer, p_student_id text, p_email text)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
    v_unknown boolean;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    select bool_or(b.contact_id is null) into v_unknown
    from tallybook.credit_types t
    left join tallybook.credit_balances b on b.contact_id = v_contact_id and b.credit_type = t.name
    where t.hubspot_property is not null and t.retired_at is null;
    if v_unknown then
        return tallybook.refuse('BALANCE_UNKNOWN', (
            select jsonb_build_object('hubspot_id', c.hubspot_id) from tallybook.contacts c where c.id = v_contact_id));
    end if;
    return tallybook.grant_answer('ok', jsonb_build_object(
        'user_id', v_contact_id, 'id', v_contact_id,
        'credits', (tallybook.available_credits(v_contact_id) -> 'credits'),
        'balances', tallybook.available_credits(v_contact_id),
        'held', (select coalesce(jsonb_object_agg(b.credit_type, tallybook.held_now(b))
                     filter (where tallybook.held_now(b) > 0), '{}')
                 from tallybook.credit_balances b where b.contact_id = v_contact_id),
        'source', 'database', 'as_of', tallybook.instant(pg_catalog.clock_timestamp())));
end
$$;

-- p_actions: [{"action", "quantity"?}]. Gives {"lines": [{action, quantity, credit_type, credits}], "needed": {type: n}}.
create function tallybook.price_actions(p_actions jsonb)
returns tallybook.answer
language plpgsql stable
as $$
declare
    v_unknown text;
    v_lines jsonb;
begin
    select a ->> 'action' into v_unknown
    from jsonb_array_elements(p_actions) a
    where not exists (select from tallybook.metered_actions m
                      where m.name = a ->> 'action' and m.retired_at is null)
    limit 1;
    if found then
        return tallybook.refuse('ACTION_NOT_FOUND', jsonb_build_object('action', v_unknown, 'actions', (
            select jsonb_agg(m.name order by m.name) from tallybook.metered_actions m where m.retired_at is null)));
    end if;
    select jsonb_agg(jsonb_build_object('action', m.name, 'quantity', q.quantity, 'credit_type', m.credit_type,
        'credits', m.cost_credits * q.quantity) order by a.place)
    into v_lines
    from jsonb_array_elements(p_actions) with ordinality as a (item, place)
    join tallybook.metered_actions m on m.name = a.item ->> 'action'
    cross join lateral (select coalesce((a.item ->> 'quantity')::bigint, 1) as quantity) q;
    return tallybook.grant_answer('ok', jsonb_build_object('lines', v_lines, 'needed', (
        select jsonb_object_agg(n.credit_type, n.credits)
        from (select l ->> 'credit_type' as credit_type, sum((l ->> 'credits')::bigint) as credits
              from jsonb_array_elements(v_lines) l group by 1) n)));
end
$$;

-- NULL: the contact can pay what is needed ({type: credits}) now. The caller holds the contact's lock and has given
-- back overdue holds; without the lock it is an answer for display.
create function tallybook.payment_refusal(p_contact_id uuid, p_needed jsonb)
returns tallybook.answer
language plpgsql stable
as $$
declare
    v_short text;
    v_unknown boolean;
    v_free_at timestamptz;
begin
    select string_agg(n.value::bigint - coalesce(b.balance - tallybook.held_now(b), 0) || ' more of: ' || t.token_name, '; '
               order by t.name) filter (where coalesce(b.balance - tallybook.held_now(b), 0) < n.value::bigint),
        bool_or(b.contact_id is null and t.hubspot_property is not null)
    into v_short, v_unknown
    from jsonb_each_text(p_needed) n
    join tallybook.credit_types t on t.name = n.key
    left join tallybook.credit_balances b on b.contact_id = p_contact_id and b.credit_type = n.key;
    if v_unknown then
        return tallybook.refuse('BALANCE_UNKNOWN', (
            select jsonb_build_object('hubspot_id', c.hubspot_id) from tallybook.contacts c where c.id = p_contact_id));
    elsif v_short is null then
        return null;
    end if;
    -- Holds that end would be enough: then it may help to wait, too.
    select max(h.expires_at) into v_free_at
    from tallybook.credit_holds h
    where h.contact_id = p_contact_id and p_needed ? h.credit_type and h.closed_at is null
    having not exists (
        select from jsonb_each_text(p_needed) n
        left join tallybook.credit_balances b on b.contact_id = p_contact_id and b.credit_type = n.key
        where coalesce(b.balance, 0) < n.value::bigint);
    v_short := v_short || coalesce('; or wait until ' || tallybook.instant(v_free_at)
                                   || ', when what is held has been used or is free again', '');
    return tallybook.refuse('INSUFFICIENT_CREDITS', jsonb_build_object('needed', p_needed, 'what_helps', v_short,
        'credits', (
            select jsonb_agg(jsonb_build_object('credit_type', t.name, 'token_name', t.token_name,
                'needed', n.value::bigint, 'balance', coalesce(b.balance, 0),
                'available', coalesce(b.balance - tallybook.held_now(b), 0), 'held', coalesce(tallybook.held_now(b), 0),
                'held_until', (select tallybook.instant(max(h.expires_at)) from tallybook.credit_holds h
                               where h.contact_id = p_contact_id and h.credit_type = n.key and h.closed_at is null
                                   and h.expires_at > pg_catalog.clock_timestamp()))
                order by t.name)
            from jsonb_each_text(p_needed) n
            join tallybook.credit_types t on t.name = n.key
            left join tallybook.credit_balances b on b.contact_id = p_contact_id and b.credit_type = n.key)));
end
$$;

-- Locks the contact for a decision about its credits and gives back overdue holds. NULL: there is none. One that was
-- merged while this waited means starting again, from the survivor and with the keys that have moved there.
create function tallybook.lock_payer(p_contact_id uuid)
returns uuid
language plpgsql volatile
as $$
declare
    v_contact record;
begin
    select c.id, c.merged_into, c.erased_at into v_contact
    from tallybook.contacts c where c.id = p_contact_id for no key update;
    if v_contact.id is null or v_contact.erased_at is not null then
        return null;
    elsif v_contact.merged_into is not null then
        raise exception 'the contact was merged meanwhile' using errcode = 'serialization_failure';
    end if;
    perform tallybook.expire_overdue_holds(p_contact_id, pg_catalog.clock_timestamp());
    return p_contact_id;
end
$$;

-- One entry per line of `price_actions`, and the note of what it was for.
create function tallybook.post_uses(
    p_contact_id uuid, p_lines jsonb, p_reason text, p_actor text, p_hold_id uuid, p_metadata jsonb
)
returns bigint[]
language plpgsql volatile
as $$
declare
    v_line jsonb;
    v_entry bigint;
    v_entries bigint[] := '{}';
begin
    for v_line in select l from jsonb_array_elements(p_lines) l loop
        insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, hold_id)
        values (p_contact_id, v_line ->> 'credit_type', -(v_line ->> 'credits')::integer, p_reason, p_actor,
                coalesce((v_line ->> 'hold_id')::uuid, p_hold_id))
        returning id into v_entry;
        insert into tallybook.credit_uses (entry_id, contact_id, action, quantity, metadata)
        values (v_entry, p_contact_id, v_line ->> 'action', (v_line ->> 'quantity')::integer, p_metadata);
        v_entries := v_entries || v_entry;
    end loop;
    return v_entries;
end
$$;

-- Queues the contact for HubSpot when one of these credit types is mirrored.
create function tallybook.note_credits(p_contact_id uuid, p_types text[])
returns void
language sql volatile
as $$
    select tallybook.note_changes(array['contact'], array[p_contact_id])
    where exists (select from tallybook.credit_types t where t.name = any(p_types) and t.hubspot_property is not null)
$$;

-- May the contact do this now? An answer for display: nothing is set aside by asking.
create function tallybook.check_actions(p_contact_id uuid, p_actions jsonb)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_price tallybook.answer := tallybook.price_actions(p_actions);
    v_refusal tallybook.answer;
begin
    if p_contact_id is null then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    elsif v_price.refusal is not null then
        return v_price;
    end if;
    v_refusal := tallybook.payment_refusal(p_contact_id, v_price.data -> 'needed');
    if v_refusal.refusal = 'BALANCE_UNKNOWN' then
        return v_refusal;
    end if;
    return tallybook.grant_answer('ok', jsonb_build_object(
        'allowed', v_refusal.refusal is null, 'needed', v_price.data -> 'needed',
        'available', (select jsonb_object_agg(n.key, coalesce(b.balance - tallybook.held_now(b), 0))
                      from jsonb_object_keys(v_price.data -> 'needed') as n (key)
                      left join tallybook.credit_balances b on b.contact_id = p_contact_id and b.credit_type = n.key),
        'what_helps', v_refusal.details -> 'what_helps',
        'as_of', tallybook.instant(pg_catalog.clock_timestamp())));
end
$$;

-- Takes the credits of all actions, or says why not and takes none. A dry run does everything and takes it back.
create function tallybook.charge_actions(
    p_contact_id uuid, p_actions jsonb, p_metadata jsonb, p_actor text,
    p_credential text, p_route text, p_key text, p_fingerprint bytea, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_answer tallybook.answer;
    v_price tallybook.answer;
    v_entries bigint[];
    v_data jsonb;
begin
    if p_contact_id is null then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    elsif p_key is not null and not p_dry_run then
        v_answer := tallybook.begin_request(p_credential, p_contact_id, p_route, p_key, p_fingerprint);
        if v_answer.replayed is not null then
            return v_answer;
        end if;
    end if;
    if tallybook.lock_payer(p_contact_id) is null then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    end if;
    v_price := tallybook.price_actions(p_actions);
    if v_price.refusal is not null then
        return v_price;
    end if;
    v_answer := tallybook.payment_refusal(p_contact_id, v_price.data -> 'needed');
    if v_answer.refusal is not null then
        return v_answer;
    end if;
    begin
        v_entries := tallybook.post_uses(p_contact_id, v_price.data -> 'lines', 'charge', p_actor, null, p_metadata);
        v_data := jsonb_build_object('contact_id', p_contact_id, 'entry_ids', v_entries,
            'charged', v_price.data -> 'needed', 'actions', v_price.data -> 'lines',
            'balances', tallybook.available_credits(p_contact_id));
        if p_dry_run then
            raise exception using errcode = 'TB001';
        end if;
    exception when sqlstate 'TB001' then
        return tallybook.grant_answer('ok', v_data || '{"dry_run": true, "entry_ids": []}');
    end;
    if p_key is not null then
        perform tallybook.end_request(p_credential, p_contact_id, p_route, p_key, p_fingerprint, 'created', v_data);
    end if;
    perform tallybook.note_credits(p_contact_id, array(select jsonb_object_keys(v_price.data -> 'needed')));
    return tallybook.grant_answer('created', v_data);
end
$$;

create function tallybook.hold_json(p_group_id uuid)
returns jsonb
language sql stable
as $$
    select jsonb_build_object('id', h.group_id, 'contact_id', min(h.contact_id::text),
        'held', (select jsonb_object_agg(s.credit_type, s.credits) from (
                     select i.credit_type, sum(i.credits) as credits from tallybook.credit_holds i
                     where i.group_id = p_group_id group by 1) s),
        'actions', jsonb_agg(jsonb_build_object('action', h.action, 'quantity', h.quantity,
                       'credit_type', h.credit_type, 'credits', h.credits) order by h.created_at, h.id),
        'status', coalesce(min(h.closed_as), 'open'),
        'expires_at', tallybook.instant(min(h.expires_at)))
    from tallybook.credit_holds h where h.group_id = p_group_id group by h.group_id
$$;

-- Sets the credits of all actions aside until captured, released or expired.
create function tallybook.hold_credits(
    p_contact_id uuid, p_actions jsonb, p_expires_in_s integer, p_metadata jsonb, p_actor text,
    p_credential text, p_route text, p_key text, p_fingerprint bytea, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_answer tallybook.answer;
    v_price tallybook.answer;
    v_group uuid := pg_catalog.gen_random_uuid();
    v_now timestamptz;
    v_data jsonb;
begin
    if p_contact_id is null then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    elsif p_key is not null and not p_dry_run then
        v_answer := tallybook.begin_request(p_credential, p_contact_id, p_route, p_key, p_fingerprint);
        if v_answer.replayed is not null then
            return v_answer;
        end if;
    end if;
    if tallybook.lock_payer(p_contact_id) is null then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    end if;
    v_price := tallybook.price_actions(p_actions);
    if v_price.refusal is not null then
        return v_price;
    end if;
    v_answer := tallybook.payment_refusal(p_contact_id, v_price.data -> 'needed');
    if v_answer.refusal is not null then
        return v_answer;
    end if;
    v_now := pg_catalog.clock_timestamp();
    begin
        insert into tallybook.credit_holds
            (group_id, contact_id, credit_type, credits, actor, expires_at, action, quantity, created_at)
        select v_group, p_contact_id, l.item ->> 'credit_type', (l.item ->> 'credits')::integer, p_actor,
            v_now + make_interval(secs => p_expires_in_s), l.item ->> 'action', (l.item ->> 'quantity')::integer,
            v_now + l.place * interval '1 microsecond'
        from jsonb_array_elements(v_price.data -> 'lines') with ordinality as l (item, place);
        update tallybook.credit_balances b set held = b.held + n.value::integer
        from jsonb_each_text(v_price.data -> 'needed') n
        where b.contact_id = p_contact_id and b.credit_type = n.key;
        if p_metadata is not null then
            insert into tallybook.hold_uses (group_id, contact_id, metadata) values (v_group, p_contact_id, p_metadata);
        end if;
        v_data := tallybook.hold_json(v_group)
            || jsonb_build_object('balances', tallybook.available_credits(p_contact_id));
        if p_dry_run then
            raise exception using errcode = 'TB001';
        end if;
    exception when sqlstate 'TB001' then
        return tallybook.grant_answer('ok', v_data - 'id' || '{"dry_run": true}');
    end;
    if p_key is not null then
        perform tallybook.end_request(p_credential, p_contact_id, p_route, p_key, p_fingerprint, 'created', v_data);
    end if;
    return tallybook.grant_answer('created', v_data);
end
$$;

-- Ends a hold: takes `p_credits` of it (NULL: all) and gives back the rest; with p_capture false gives back
-- everything. Exactly one of many who try wins; who comes later is told how it ended.
create function tallybook.close_hold(
    p_hold_id uuid, p_capture boolean, p_credits integer, p_metadata jsonb, p_actor text,
    p_credential text, p_route text, p_key text, p_fingerprint bytea, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_contact_id uuid;
    v_answer tallybook.answer;
    v_rows tallybook.credit_holds[];
    v_total integer;
    v_left integer;
    v_lines jsonb := '[]';
    v_entries bigint[] := '{}';
    v_data jsonb;
begin
    -- A closed hold stays with whom it belonged to; who they are now is asked.
    select tallybook.find_contact(h.contact_id::text) into v_contact_id from tallybook.credit_holds h
    where h.group_id = p_hold_id and h.actor = p_actor limit 1;
    if not found then
        return tallybook.refuse('HOLD_NOT_FOUND');
    elsif p_key is not null and not p_dry_run then
        v_answer := tallybook.begin_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint);
        if v_answer.replayed is not null then
            return v_answer;
        end if;
    end if;
    if tallybook.lock_payer(v_contact_id) is null then
        return tallybook.refuse('HOLD_NOT_FOUND');
    end if;
    select array_agg(h order by h.created_at, h.id), sum(h.credits) into v_rows, v_total
    from tallybook.credit_holds h where h.group_id = p_hold_id;
    if v_rows[1].closed_at is not null then
        return tallybook.refuse('HOLD_CLOSED', jsonb_build_object('closed_as', v_rows[1].closed_as,
            'closed_at', tallybook.instant(v_rows[1].closed_at), 'entry_ids', (
                select coalesce(jsonb_agg(e.id order by e.id), '[]') from tallybook.credit_entries e
                where e.hold_id in (select h.id from unnest(v_rows) h) and e.reason = 'capture')));
    elsif p_capture and p_credits is not null then
        if exists (select from unnest(v_rows) h where h.credit_type <> v_rows[1].credit_type) then
            return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'credits',
                'problem', 'must be left out: this hold is of several credit types'));
        elsif p_credits not between 1 and v_total then
            return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'credits',
                'problem', 'must be from 1 to the ' || v_total || ' that are held'));
        end if;
    end if;
    begin
        -- Given back first: a balance can never be less than what is held of it.
        update tallybook.credit_balances b set held = b.held - s.credits
        from (select h.credit_type, sum(h.credits)::integer as credits from unnest(v_rows) h group by 1) s
        where b.contact_id = v_contact_id and b.credit_type = s.credit_type;
        v_left := case when p_capture then coalesce(p_credits, v_total) else 0 end;
        for i in 1..cardinality(v_rows) loop
            update tallybook.credit_holds h
            set closed_at = pg_catalog.clock_timestamp(),
                closed_as = case when p_capture then 'captured' else 'released' end,
                captured_credits = least(v_left, h.credits)
            where h.id = v_rows[i].id;
            if v_left > 0 then
                v_lines := v_lines || jsonb_build_object('action', v_rows[i].action, 'hold_id', v_rows[i].id,
                    'quantity', v_rows[i].quantity, 'credit_type', v_rows[i].credit_type,
                    'credits', least(v_left, v_rows[i].credits));
            end if;
            v_left := greatest(0, v_left - v_rows[i].credits);
        end loop;
        v_entries := tallybook.post_uses(v_contact_id, v_lines, 'capture', p_actor, null,
            coalesce(p_metadata, (select u.metadata from tallybook.hold_uses u where u.group_id = p_hold_id)));
        v_data := tallybook.hold_json(p_hold_id) || jsonb_build_object(
            'entry_ids', v_entries,
            'charged', coalesce((select jsonb_object_agg(s.credit_type, s.credits) from (
                select l ->> 'credit_type' as credit_type, sum((l ->> 'credits')::integer) as credits
                from jsonb_array_elements(v_lines) l group by 1) s), '{}'),
            'balances', tallybook.available_credits(v_contact_id));
        if p_dry_run then
            raise exception using errcode = 'TB001';
        end if;
    exception when sqlstate 'TB001' then
        return tallybook.grant_answer('ok', v_data || '{"dry_run": true, "entry_ids": []}');
    end;
    if p_key is not null then
        perform tallybook.end_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint, 'ok', v_data);
    end if;
    perform tallybook.note_credits(v_contact_id, array(select h.credit_type from unnest(v_rows) h));
    return tallybook.grant_answer('ok', v_data);
end
$$;

-- Gives back what one of the caller's own charges or captures took; once. To whoever the contact is now.
create function tallybook.refund_use(
    p_entry_id bigint, p_actor text,
    p_credential text, p_route text, p_key text, p_fingerprint bytea, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_entry tallybook.credit_entries;
    v_contact_id uuid;
    v_answer tallybook.answer;
    v_refund bigint;
    v_data jsonb;
begin
    select * into v_entry from tallybook.credit_entries e
    where e.id = p_entry_id and e.actor = p_actor and e.reason in ('charge', 'capture');
    if not found then
        return tallybook.refuse('ENTRY_NOT_FOUND');
    end if;
    v_contact_id := tallybook.find_contact(v_entry.contact_id::text);
    if p_key is not null and not p_dry_run then
        v_answer := tallybook.begin_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint);
        if v_answer.replayed is not null then
            return v_answer;
        end if;
    end if;
    if tallybook.lock_payer(v_contact_id) is null then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    end if;
    select e.id into v_refund from tallybook.credit_entries e where e.reverses_entry_id = p_entry_id;
    if found then
        return tallybook.refuse('ALREADY_REFUNDED', jsonb_build_object('refund_entry_id', v_refund));
    end if;
    begin
        insert into tallybook.credit_balances (contact_id, credit_type) values (v_contact_id, v_entry.credit_type)
        on conflict on constraint credit_balances_pkey do nothing;
        insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, hold_id, reverses_entry_id)
        values (v_contact_id, v_entry.credit_type, -v_entry.delta, 'refund', p_actor, v_entry.hold_id, p_entry_id)
        returning id into v_refund;
        v_data := jsonb_build_object('entry_id', v_refund, 'reverses_entry_id', p_entry_id,
            'contact_id', v_contact_id, 'credit_type', v_entry.credit_type, 'credits_restored', -v_entry.delta,
            'balances', tallybook.available_credits(v_contact_id));
        if p_dry_run then
            raise exception using errcode = 'TB001';
        end if;
    exception when sqlstate 'TB001' then
        return tallybook.grant_answer('ok', v_data - 'entry_id' || '{"dry_run": true}');
    end;
    if p_key is not null then
        perform tallybook.end_request(p_credential, v_contact_id, p_route, p_key, p_fingerprint, 'created', v_data);
    end if;
    perform tallybook.note_credits(v_contact_id, array[v_entry.credit_type]);
    return tallybook.grant_answer('created', v_data);
end
$$;

-- A person another program knows: found by e-mail (or by that program's own id for them), else created here with the
-- catalog's welcome credits. Grants nothing to whoever is there already.
create function tallybook.create_contact(
    p_email text, p_firstname text, p_lastname text, p_external_id text, p_actor text, p_dry_run boolean
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_contact_id uuid;
    v_outcome text := 'already';
    v_external text := p_actor || ':' || p_external_id;
    v_data jsonb;
begin
    -- Two at once with one address: the second waits, and finds.
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(p_email, 11));
    v_contact_id := tallybook.find_contact('email:' || p_email);
    if v_contact_id is null and p_external_id is not null then
        select tallybook.find_contact(a.contact_id::text) into v_contact_id from tallybook.contact_aliases a
        where a.kind = 'external_id' and a.value = v_external limit 1;
    end if;
    begin
        if v_contact_id is null then
            v_outcome := 'created';
            insert into tallybook.contacts (email, firstname, lastname) values (p_email, p_firstname, p_lastname)
            on conflict do nothing returning id into v_contact_id;
        end if;
        if v_contact_id is null then
            -- HubSpot brought them at this moment.
            v_outcome := 'already';
            v_contact_id := tallybook.find_contact('email:' || p_email);
        elsif v_outcome = 'created' then
            insert into tallybook.credit_balances (contact_id, credit_type)
            select v_contact_id, t.name from tallybook.credit_types t
            where t.welcome_credits > 0 and t.retired_at is null order by t.name;
            insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, external_event)
            select v_contact_id, t.name, t.welcome_credits, 'welcome', p_actor,
                concat_ws(':', v_contact_id, 'welcome', t.name)
            from tallybook.credit_types t where t.welcome_credits > 0 and t.retired_at is null order by t.name;
            perform tallybook.record('contact.created', 'contact', v_contact_id, v_contact_id, p_actor, '{}', null);
        end if;
        if p_external_id is not null then
            insert into tallybook.contact_aliases (kind, value, contact_id)
            values ('external_id', v_external, v_contact_id) on conflict do nothing;
        end if;
        v_data := jsonb_build_object('id', v_contact_id, 'created', v_outcome = 'created',
            'hubspot_id', (select c.hubspot_id from tallybook.contacts c where c.id = v_contact_id),
            'balances', tallybook.available_credits(v_contact_id));
        if p_dry_run then
            raise exception using errcode = 'TB001';
        end if;
    exception when sqlstate 'TB001' then
        return tallybook.grant_answer('ok',
            case when v_outcome = 'created' then v_data - 'id' else v_data end || '{"dry_run": true}');
    end;
    if v_outcome = 'created' then
        perform tallybook.note_changes(array['contact'], array[v_contact_id]);
    end if;
    return tallybook.grant_answer(v_outcome, v_data);
end
$$;

-- The balances of one contact as another program may see them: unknown mirrored ones are left out, never 0.
create function tallybook.show_contact_credits(p_contact_id uuid)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_now timestamptz := pg_catalog.clock_timestamp();
begin
    return tallybook.grant_answer('ok', jsonb_build_object(
        'contact_id', p_contact_id, 'balances', tallybook.available_credits(p_contact_id),
        'held', (select coalesce(jsonb_object_agg(h.credit_type, h.credits), '{}') from (
                     select i.credit_type, sum(i.credits) as credits from tallybook.credit_holds i
                     where i.contact_id = p_contact_id and i.closed_at is null and i.expires_at > v_now group by 1) h),
        'holds', (select coalesce(jsonb_agg(distinct jsonb_build_object('id', i.group_id,
                     'expires_at', tallybook.instant(i.expires_at))), '[]') from tallybook.credit_holds i
                  where i.contact_id = p_contact_id and i.closed_at is null and i.expires_at > v_now),
        'source', 'database', 'as_of', tallybook.instant(v_now)));
end
$$;

-- The ledger of one contact, newest first, with what each entry was for. `action` is that of a metered action, else
-- the entry's reason; refunds carry the action of what they reverse.
create function tallybook.entries_page(p_contact_id uuid, p_page integer, p_per_page integer, p_action text)
returns jsonb
language plpgsql stable
as $$
declare
    v_total integer;
    v_rows jsonb;
begin
    select count(*) into v_total
    from tallybook.credit_entries e
    left join tallybook.credit_uses u on u.entry_id = coalesce(e.reverses_entry_id, e.id)
    where e.contact_id = p_contact_id and (p_action is null or p_action in (e.reason, u.action));
    select coalesce(jsonb_agg(jsonb_build_object(
        'id', p.id, 'action', coalesce(p.action, p.reason), 'reason', p.reason, 'credit_type', p.credit_type,
        'delta', p.delta, 'credits_used', greatest(-p.delta, 0), 'balance_after', p.balance_after,
        'quantity', p.quantity, 'metadata', p.metadata, 'reverses_entry_id', p.reverses_entry_id,
        'booking_id', b.booking_id, 'created_at', tallybook.instant(p.created_at)) order by p.id desc), '[]')
    into v_rows
    from (
        select e.*, u.action, u.quantity, u.metadata
        from tallybook.credit_entries e
        left join tallybook.credit_uses u on u.entry_id = coalesce(e.reverses_entry_id, e.id)
        where e.contact_id = p_contact_id and (p_action is null or p_action in (e.reason, u.action))
        order by e.id desc limit p_per_page offset (p_page - 1)::bigint * p_per_page
    ) p
    left join tallybook.bookings b on b.id = p.booking_id;
    return jsonb_build_object('data', v_rows, 'pagination', jsonb_build_object(
        'page', p_page, 'per_page', p_per_page, 'total', v_total,
        'pages', ceil(v_total::numeric / p_per_page)::integer));
end
$$;

create or replace function tallybook.usage_history(
    p_contact_id uuid, p_epoch integer, p_student_id text, p_email text,
    p_page integer, p_per_page integer, p_reason text
)
returns tallybook.answer
language plpgsql stable
set search_path = ''
as $$
declare
    v_contact_id uuid;
    v_refusal text;
begin
    select i.contact_id, i.refusal into v_contact_id, v_refusal
    from tallybook.identify(p_contact_id, p_epoch, p_student_id, p_email) i;
    if v_refusal is not null then
        return tallybook.refuse(v_refusal);
    end if;
    return tallybook.grant_answer('ok', tallybook.entries_page(v_contact_id, p_page, p_per_page, p_reason));
end
$$;

-- Gives back overdue holds of at most p_limit contacts, each under its lock; those that are locked now come next
-- time. Housekeeping only: every decision does this for its own contact first.
create function tallybook.sweep_holds(p_limit integer)
returns integer
language plpgsql volatile
set search_path = ''
set lock_timeout = '2s'
as $$
declare
    v_contact_id uuid;
    v_number integer := 0;
begin
    for v_contact_id in
        select c.id from tallybook.contacts c
        where c.id in (select h.contact_id from tallybook.credit_holds h
                       where h.closed_at is null and h.expires_at <= pg_catalog.clock_timestamp()
                       order by h.expires_at limit p_limit)
        order by c.id for no key update skip locked
    loop
        perform tallybook.expire_overdue_holds(v_contact_id, pg_catalog.clock_timestamp());
        v_number := v_number + 1;
    end loop;
    return v_number;
end
$$;

select tallybook.secure();
