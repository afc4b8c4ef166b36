-- What the database refuses, whoever asks: changed history, a balance without its entry, a seat without its booking,
-- two bookings at once. Functions that change guarded columns run as the owner; the application has no right to.

select tallybook.begin_migration('20261121000500', 'create_guards', '0.1.0');

create function tallybook.refuse_change()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    raise exception '% is append-only: % is refused', tg_table_name, tg_op
        using errcode = 'restrict_violation', hint = 'Write a new row that corrects the old one.';
end
$$;

create trigger credit_entries_are_append_only before update or delete on tallybook.credit_entries
    for each row execute function tallybook.refuse_change();
create trigger credit_entries_are_never_truncated before truncate on tallybook.credit_entries
    for each statement execute function tallybook.refuse_change();
create trigger audit_log_is_append_only before update or delete on tallybook.audit_log
    for each row execute function tallybook.refuse_change();
create trigger audit_log_is_never_truncated before truncate on tallybook.audit_log
    for each statement execute function tallybook.refuse_change();

-- Inserting an entry is the only way to change a balance. The update locks the balance, so `seq` has no gaps and
-- `balance_after` is the running total, however many write at once.
create function tallybook.post_entry()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
    v_reversed record;
begin
    if new.reverses_entry_id is not null then
        select e.delta, e.credit_type into v_reversed
        from tallybook.credit_entries e where e.id = new.reverses_entry_id;
        if found and (v_reversed.credit_type <> new.credit_type or sign(v_reversed.delta) = sign(new.delta)
                      or abs(new.delta) > abs(v_reversed.delta)) then
            raise exception 'entry % cannot be reversed by % of %',
                new.reverses_entry_id, new.delta, new.credit_type
                using errcode = 'check_violation', constraint = 'credit_entries_reversal_fits';
        end if;
    end if;
    update tallybook.credit_balances b
    set balance = b.balance + new.delta, version = b.version + 1
    where b.contact_id = new.contact_id and b.credit_type = new.credit_type
    returning b.balance, b.version into new.balance_after, new.seq;
    if not found then
        raise exception 'contact % has no balance of %', new.contact_id, new.credit_type
            using errcode = 'foreign_key_violation', constraint = 'credit_entries_balance_fkey';
    end if;
    new.created_at := pg_catalog.clock_timestamp();
    return new;
end
$$;

create trigger credit_entries_post before insert on tallybook.credit_entries
    for each row execute function tallybook.post_entry();

-- A row that ON CONFLICT or MERGE leaves out has passed the trigger above: the balance would change without its
-- entry. PostgreSQL refuses both on a table with a rule for UPDATE; this one does nothing else.
create rule credit_entries_refuse_on_conflict as on update to tallybook.credit_entries do also nothing;

create function tallybook.refuse_direct_change()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    -- Depth 1 is this trigger itself: then no entry and no booking is behind the change.
    if pg_catalog.pg_trigger_depth() < 2 then
        raise exception '%.% changes only through %', tg_table_name, tg_argv[0], tg_argv[1]
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger credit_balances_change_by_entry before update on tallybook.credit_balances
    for each row when (old.balance <> new.balance or old.version <> new.version
                       or old.contact_id <> new.contact_id or old.credit_type <> new.credit_type)
    execute function tallybook.refuse_direct_change('balance', 'credit_entries');
create trigger credit_balances_start_at_zero before insert on tallybook.credit_balances
    for each row when (new.balance <> 0 or new.version <> 0 or new.held <> 0)
    execute function tallybook.refuse_direct_change('balance', 'credit_entries');

create trigger mock_exams_seats_change_by_booking before update on tallybook.mock_exams
    for each row when (old.total_bookings <> new.total_bookings)
    execute function tallybook.refuse_direct_change('total_bookings', 'bookings');
create trigger mock_exams_start_empty before insert on tallybook.mock_exams
    for each row when (new.total_bookings <> 0)
    execute function tallybook.refuse_direct_change('total_bookings', 'bookings');

-- A live booking holds a seat. A full session refuses by its constraint mock_exams_seats_within_capacity.
create function tallybook.count_seats()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
    v_had boolean := tg_op <> 'INSERT' and old.status <> 'Cancelled';
    v_has boolean := tg_op <> 'DELETE' and new.status <> 'Cancelled';
begin
    if v_had and v_has and old.mock_exam_id = new.mock_exam_id then
        return null;
    end if;
    if v_had then
        update tallybook.mock_exams set total_bookings = total_bookings - 1 where id = old.mock_exam_id;
    end if;
    if v_has then
        update tallybook.mock_exams set total_bookings = total_bookings + 1 where id = new.mock_exam_id;
    end if;
    return null;
end
$$;

create trigger bookings_count_seats after insert or delete or update of status, mock_exam_id on tallybook.bookings
    for each row execute function tallybook.count_seats();

-- Overlap is no unique key, and an exclusion constraint would need an extension: so it is checked under the lock of
-- the contact, which every writer of that contact's bookings takes.
create function tallybook.refuse_overlap()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    perform from tallybook.contacts c where c.id = new.contact_id for no key update;
    if exists (
        select from tallybook.bookings b
        where b.contact_id = new.contact_id and b.id <> new.id
            and b.status <> 'Cancelled' and not b.grandfathered
            and b.starts_at < new.ends_at and b.ends_at > new.starts_at
    ) then
        raise exception 'contact % has an overlapping live booking', new.contact_id
            using errcode = 'exclusion_violation', constraint = 'bookings_no_overlap';
    end if;
    return new;
end
$$;

create trigger bookings_no_overlap_on_insert before insert on tallybook.bookings
    for each row when (new.status <> 'Cancelled' and not new.grandfathered)
    execute function tallybook.refuse_overlap();
create trigger bookings_no_overlap_on_update before update of status, contact_id, starts_at, ends_at, grandfathered
    on tallybook.bookings
    for each row when (new.status <> 'Cancelled' and not new.grandfathered)
    execute function tallybook.refuse_overlap();

-- What people and other programs know a booking by never changes, except that erasing a person blanks its text.
create function tallybook.keep_booking_identity()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    if old.id = new.id and old.original_mock_exam_id = new.original_mock_exam_id and old.ordinal = new.ordinal
            and old.idempotency_key = new.idempotency_key
            and exists (select from tallybook.contacts c where c.id = new.contact_id and c.erased_at is not null) then
        return new;
    end if;
    raise exception 'what identifies booking % never changes', old.id using errcode = 'restrict_violation';
end
$$;

create trigger bookings_keep_identity before update on tallybook.bookings
    for each row when (old.id <> new.id or old.original_mock_exam_id <> new.original_mock_exam_id
                       or old.ordinal <> new.ordinal or old.idempotency_key <> new.idempotency_key
                       or old.booking_id <> new.booking_id)
    execute function tallybook.keep_booking_identity();
