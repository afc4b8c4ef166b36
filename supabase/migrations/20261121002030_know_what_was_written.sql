-- An outage: writes of ours were on their way when HubSpot went, and meanwhile people typed more than HubSpot keeps.
-- Only the numbers that those writes named are unknowable then, not all numbers of the contact.

select tallybook.begin_migration('20261121002030', 'know_what_was_written', '0.1.0');

-- Whether an own write that nobody has read yet may have set this property: the stamps name all of them, when they
-- are all shown.
create function tallybook.is_written_since(p_answer jsonb, p_contact_id uuid, p_property text)
returns boolean
language sql stable
set search_path = ''
as $$
    select exists (
        select from tallybook.contacts c
        cross join lateral jsonb_array_elements_text(
            (p_answer -> 'history' -> 'stamps') || jsonb_build_array(p_answer -> 'stamp')) with ordinality as s (stamp, rank)
        where c.id = p_contact_id and s.stamp is distinct from c.crm_stamp
            and strpos(s.stamp || ' ', ' ' || p_property || '=') > 0
            and s.rank > coalesce((
                select min(o.rank) from jsonb_array_elements_text(p_answer -> 'history' -> 'stamps')
                    with ordinality as o (stamp, rank)
                where o.stamp = c.crm_stamp), 0))
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
        v_seen := tallybook.entries_seen(v_type.entries, v_type.crm_base, v_type.crm_unset, p_since);
        -- More was typed than HubSpot keeps: as long as nobody but people wrote it, the sum is the difference all the same.
        if v_seen is null and v_all_stamps and tallybook.is_newer_throughout(v_type.entries, p_since)
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

select tallybook.secure();
