"""How to break each rule of `verify` by hand, and only that one.

:contact, :booking, :other, :cancelled, :override, :bystander, :exam and :other_exam stand for ids of
rows that are there. It takes a superuser with triggers and foreign keys switched off.
"""

DAMAGE = {
    "balances_are_explained": """
        update credit_balances set balance = balance + 1
        where (contact_id, credit_type) = (:contact, 'sj_credits')""",
    "balances_stay_in_bounds": """
        alter table credit_balances drop constraint credit_balances_held_within_balance;
        insert into credit_holds (contact_id, credit_type, credits, actor, expires_at)
        values (:contact, 'sj_credits', 50, 'key:x', now() + interval '1 hour');
        update credit_balances set held = 50 where (contact_id, credit_type) = (:contact, 'sj_credits')""",
    "entries_have_no_gaps": """
        update credit_entries set seq = 3 where (contact_id, credit_type, seq) = (:contact, 'cs_credits', 2);
        update credit_balances set version = 3 where (contact_id, credit_type) = (:contact, 'cs_credits')""",
    "entries_add_up": """
        update credit_entries set balance_after = 77
        where (contact_id, credit_type, seq) = (:contact, 'sj_credits', 2)""",
    "held_is_open_holds": """
        update credit_balances set held = 1 where (contact_id, credit_type) = (:contact, 'sj_credits')""",
    "seats_are_live_bookings": """
        update mock_exams set total_bookings = total_bookings + 1 where id = :exam""",
    "seats_stay_within_capacity": """
        alter table mock_exams drop constraint mock_exams_seats_within_capacity;
        update mock_exams set capacity = 0 where id = :exam""",
    "bookings_are_paid_once": """
        update bookings set token_used = 'Shared Token' where id = :override""",
    "refunds_are_as_marked": """
        update bookings set refunded = false where id = :cancelled""",
    "reversals_fit": """
        update credit_entries set booking_id = :override where reverses_entry_id is not null""",
    "payments_are_in_the_ledger": """
        insert into payments (id, intent, contact_id, pack, credit_type, credits, entry_id)
        select 'cs_1', 'pi_1', e.contact_id, 'starter', e.credit_type, e.delta, e.id
        from credit_entries e where (e.contact_id, e.credit_type, e.seq) = (:contact, 'sj_credits', 1)""",
    "one_live_booking_per_day": """
        drop index bookings_one_live_per_day_and_type;
        update mock_exams o
        set mock_type = e.mock_type, exam_on = e.exam_on, start_time = e.end_time, starts_at = e.ends_at,
            end_time = e.end_time + interval '1 hour', ends_at = e.ends_at + interval '1 hour'
        from mock_exams e where e.id = :exam and o.id = :other_exam;
        update bookings b
        set mock_type = o.mock_type, exam_on = o.exam_on, starts_at = o.starts_at, ends_at = o.ends_at,
            booking_id = replace(b.booking_id, b.mock_type, o.mock_type)
        from mock_exams o where o.id = :other_exam and b.id = :other""",
    "no_live_bookings_overlap": """
        update mock_exams o
        set exam_on = e.exam_on, start_time = e.start_time, end_time = e.end_time,
            starts_at = e.starts_at, ends_at = e.ends_at
        from mock_exams e where e.id = :exam and o.id = :other_exam;
        update bookings b set exam_on = o.exam_on, starts_at = o.starts_at, ends_at = o.ends_at
        from mock_exams o where o.id = :other_exam and b.id = :other""",
    "bookings_repeat_their_session": """
        update bookings set ends_at = ends_at + interval '1 minute' where id = :booking""",
    "booking_ids_are_well_formed": """
        update bookings set booking_id = 'BK-20261121-1' where id = :booking""",
    "keys_keep_their_answer": """
        update idempotency_keys set data = jsonb_set(data, '{id}', to_jsonb(gen_random_uuid()))""",
    "merges_are_followed": """
        update contacts set merged_into = :bystander where id = :contact""",
    "erased_contacts_are_blank": """
        update contacts set erased_at = clock_timestamp() where id = :contact""",
    "types_are_known": """
        update mock_types set pays_with = pays_with || '{gold}' where name = 'Mini-mock'""",
    "outbox_is_consistent": """
        update outbox set object_id = gen_random_uuid() where object_id = :booking""",
}


async def damage(superuser, statements, names):
    """Runs the statements, with names put in, where nothing stops them."""
    await superuser.execute("set search_path = tallybook")
    await superuser.execute("set session_replication_role = replica")
    for statement in statements.split(";"):
        text = statement
        # The longest first: :other is the beginning of :other_exam.
        for name in sorted(names, key=len, reverse=True):
            text = text.replace(f":{name}", f"'{names[name]}'")
        await superuser.execute(text)
