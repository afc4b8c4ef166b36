-- Packs of credits bought with money: what the payment provider told, once per event and once per payment, in order.

select tallybook.begin_migration('20261121002010', 'create_payments', '0.1.0');

create table tallybook.payments (
    -- The provider's id of the checkout.
    id text not null,
    intent text,
    contact_id uuid not null,
    pack text not null,
    credit_type text not null,
    credits integer not null,
    entry_id bigint not null,
    -- How much of the pack refunds have taken back, and how much an open or lost dispute has.
    refunded_credits integer not null default 0,
    disputed_credits integer not null default 0,
    disputed_taken_credits integer not null default 0,
    -- What should have been taken back and was spent already.
    missing_credits integer not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    constraint payments_pkey primary key (id),
    constraint payments_intent_key unique (intent),
    constraint payments_entry_id_key unique (entry_id),
    constraint payments_contact_id_fkey foreign key (contact_id) references tallybook.contacts (id),
    constraint payments_entry_id_fkey foreign key (entry_id) references tallybook.credit_entries (id),
    constraint payments_take_back_no_more_than_given check (
        least(refunded_credits, disputed_credits, disputed_taken_credits, missing_credits) >= 0
        and refunded_credits + disputed_credits <= credits and disputed_taken_credits <= disputed_credits)
);

-- Every event that was genuine, with what became of it; a refused one may come again and is tried again.
create table tallybook.payment_events (
    id text not null,
    kind text not null,
    payment_id text,
    dispute_id text,
    outcome text not null,
    problem text,
    received_at timestamptz not null default clock_timestamp(),
    constraint payment_events_pkey primary key (id),
    constraint payment_events_outcome_is_known check (outcome in ('done', 'nothing_to_do', 'refused')),
    constraint payment_events_refused_says_why check ((outcome = 'refused') = (problem is not null))
);

create index payment_events_payment_idx on tallybook.payment_events (payment_id);

insert into tallybook.application_rights (table_name, privilege)
select t, p from unnest(array['payments', 'payment_events']) t, unnest(array['insert', 'update']) p;

-- Changes a payer's balance because of a payment: at most down to what is held. Gives what was really taken or given.
create function tallybook.post_payment(
    p_payment tallybook.payments, p_credits integer, p_reason text, p_event text
)
returns integer
language plpgsql volatile
as $$
declare
    v_contact_id uuid := tallybook.lock_payer(tallybook.find_contact(p_payment.contact_id::text));
    v_credits integer;
    v_reverses bigint;
begin
    if v_contact_id is null then
        return 0;
    end if;
    select greatest(p_credits, b.held - b.balance) into v_credits from tallybook.credit_balances b
    where b.contact_id = v_contact_id and b.credit_type = p_payment.credit_type;
    if coalesce(v_credits, 0) = 0 then
        return 0;
    end if;
    -- The first that takes back is linked to what it reverses; an entry is reversed once, so later ones name the event.
    select p_payment.entry_id into v_reverses
    where v_credits < 0 and not exists (
        select from tallybook.credit_entries e where e.reverses_entry_id = p_payment.entry_id);
    insert into tallybook.credit_entries
        (contact_id, credit_type, delta, reason, actor, reverses_entry_id, external_event)
    values (v_contact_id, p_payment.credit_type, v_credits, p_reason, 'stripe', v_reverses, 'stripe:' || p_event);
    perform tallybook.note_credits(v_contact_id, array[p_payment.credit_type]);
    return v_credits;
end
$$;

-- Grants the pack of a paid checkout, once.
create function tallybook.grant_pack(p_event text, p_payment text, p_intent text, p_contact text, p_pack text)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_pack record;
    v_contact_id uuid;
    v_entry bigint;
begin
    perform from tallybook.payments p where p.id = p_payment;
    if found then
        return tallybook.grant_answer('already', jsonb_build_object('outcome', 'nothing_to_do'));
    end if;
    -- A pack that is no longer sold was paid all the same.
    select k.credit_type, k.credits into v_pack from tallybook.packs k where k.name = p_pack;
    if not found then
        return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'metadata.pack',
            'problem', 'is no pack of the catalog'));
    end if;
    begin
        v_contact_id := tallybook.find_contact(p_contact);
    exception when raise_exception then
        return tallybook.refuse(sqlerrm);
    end;
    v_contact_id := tallybook.lock_payer(v_contact_id);
    if v_contact_id is null then
        return tallybook.refuse('CONTACT_NOT_FOUND');
    end if;
    insert into tallybook.credit_balances (contact_id, credit_type) values (v_contact_id, v_pack.credit_type)
    on conflict on constraint credit_balances_pkey do nothing;
    insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor, external_event)
    values (v_contact_id, v_pack.credit_type, v_pack.credits, 'purchase', 'stripe', 'stripe:' || p_payment)
    returning id into v_entry;
    insert into tallybook.payments (id, intent, contact_id, pack, credit_type, credits, entry_id)
    values (p_payment, p_intent, v_contact_id, p_pack, v_pack.credit_type, v_pack.credits, v_entry);
    perform tallybook.note_credits(v_contact_id, array[v_pack.credit_type]);
    return tallybook.grant_answer('created', jsonb_build_object('outcome', 'done', 'contact_id', v_contact_id,
        'credits', v_pack.credits));
end
$$;

-- Takes back the part of a pack that was refunded, opens or ends a dispute. `p_part` is how much of the price has been
-- refunded in all, from 0 to 1.
create function tallybook.change_payment(p_event text, p_kind text, p_dispute text, p_intent text, p_part numeric)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_payment tallybook.payments;
    v_wanted integer;
    v_moved integer;
begin
    select * into v_payment from tallybook.payments p where p.intent = p_intent for no key update;
    if not found then
        -- It may overtake the payment it is about; refused, it comes again.
        return tallybook.refuse('ENTRY_NOT_FOUND', jsonb_build_object('payment_intent', p_intent));
    end if;
    if p_kind = 'dispute_won' then
        if not exists (select from tallybook.payment_events e
                       where e.payment_id = p_intent and e.dispute_id is not distinct from p_dispute
                           and e.kind = 'dispute_opened' and e.outcome <> 'refused') then
            -- It has overtaken the dispute it ends.
            return tallybook.refuse('ENTRY_NOT_FOUND', jsonb_build_object('payment_intent', p_intent));
        end if;
        v_moved := tallybook.post_payment(v_payment, v_payment.disputed_taken_credits, p_kind, p_event);
        update tallybook.payments p
        set missing_credits = p.missing_credits - (p.disputed_credits - p.disputed_taken_credits),
            disputed_credits = p.disputed_taken_credits - v_moved,
            disputed_taken_credits = p.disputed_taken_credits - v_moved
        where p.id = v_payment.id;
        return tallybook.grant_answer('ok', jsonb_build_object('outcome', 'done',
            'contact_id', v_payment.contact_id, 'credits', v_moved));
    end if;
    if p_kind = 'dispute_opened' and exists (select from tallybook.payment_events e
            where e.payment_id = p_intent and e.dispute_id is not distinct from p_dispute
                and e.kind = 'dispute_won' and e.outcome = 'done') then
        -- A late word about a dispute that is over.
        return tallybook.grant_answer('already', jsonb_build_object('outcome', 'nothing_to_do'));
    end if;
    v_wanted := v_payment.credits - v_payment.refunded_credits - v_payment.disputed_credits;
    if p_kind = 'refund' then
        v_wanted := least(v_wanted, floor(v_payment.credits * p_part)::integer - v_payment.refunded_credits);
    end if;
    if v_wanted <= 0 then
        return tallybook.grant_answer('already', jsonb_build_object('outcome', 'nothing_to_do'));
    end if;
    v_moved := -tallybook.post_payment(v_payment, -v_wanted,
        case p_kind when 'refund' then 'purchase_refund' else p_kind end, p_event);
    update tallybook.payments p
    set refunded_credits = p.refunded_credits + case p_kind when 'refund' then v_wanted else 0 end,
        disputed_credits = p.disputed_credits + case p_kind when 'refund' then 0 else v_wanted end,
        disputed_taken_credits = p.disputed_taken_credits + case p_kind when 'refund' then 0 else v_moved end,
        missing_credits = p.missing_credits + v_wanted - v_moved
    where p.id = v_payment.id;
    if v_moved < v_wanted then
        perform tallybook.raise_alert('payment_short', v_payment.id,
            jsonb_build_object('contact_id', v_payment.contact_id, 'missing_credits', v_wanted - v_moved));
    end if;
    return tallybook.grant_answer('ok', jsonb_build_object('outcome', 'done', 'contact_id', v_payment.contact_id,
        'credits', -v_moved));
end
$$;

-- One genuine event of the provider. p_kind: 'paid', 'refund', 'dispute_opened', 'dispute_won', or 'other' for what
-- changes no credits. `p_payment` is the checkout, or which dispute it is. Repeats change nothing; what is refused is written down with its reason, and alerts.
create function tallybook.take_payment_event(
    p_event text, p_kind text, p_payment text, p_intent text, p_contact text, p_pack text, p_part numeric
)
returns tallybook.answer
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_answer tallybook.answer;
begin
    -- Events of one payment one after the other, whichever server they reach.
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(coalesce(p_intent, p_payment, p_event), 13));
    if exists (select from tallybook.payment_events e where e.id = p_event and e.outcome <> 'refused') then
        return tallybook.grant_answer('already', jsonb_build_object('outcome', 'nothing_to_do'));
    end if;
    v_answer := case p_kind
        when 'other' then tallybook.grant_answer('ok', '{"outcome": "nothing_to_do"}')
        when 'paid' then tallybook.grant_pack(p_event, p_payment, p_intent, p_contact, p_pack)
        else tallybook.change_payment(p_event, p_kind, p_payment, p_intent, p_part) end;
    insert into tallybook.payment_events (id, kind, payment_id, dispute_id, outcome, problem)
    values (p_event, p_kind, case when p_kind like 'dispute%' then p_intent else coalesce(p_payment, p_intent) end,
        case when p_kind like 'dispute%' then p_payment end,
        case when v_answer.refusal is null then v_answer.data ->> 'outcome' else 'refused' end, v_answer.refusal)
    on conflict on constraint payment_events_pkey do update
        set outcome = excluded.outcome, problem = excluded.problem, received_at = excluded.received_at;
    if v_answer.refusal is not null then
        perform tallybook.raise_alert('payment_refused', p_event,
            jsonb_build_object('kind', p_kind, 'problem', v_answer.refusal));
    else
        perform tallybook.clear_alert('payment_refused', p_event);
    end if;
    return v_answer;
end
$$;

select tallybook.secure();
