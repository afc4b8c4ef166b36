"""What keeps a race right, named, so that a control can take it away and watch the race go wrong.

Each guard is a text in one of our functions and what stands there without it, or a statement. A text that is
no longer found is an error: a control that removes nothing proves nothing.
"""

from dataclasses import dataclass

from psycopg import sql

TRIES = 25
"""So often a control may repeat its race until the missing guard shows."""


@dataclass(frozen=True)
class Line:
    """A text in a function of ours; without the guard `instead` stands there."""

    function: str
    text: str
    instead: str = ""


@dataclass(frozen=True)
class Unguard:
    """A statement that takes a guard of the schema away."""

    statement: str


_LOCKED = " for no key update"


def _constraint(table, name):
    return Unguard(f"alter table tallybook.{table} drop constraint {name}")


EXAM_LOCK_OF_BOOKING = (
    Line(
        "book_seat",
        "perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(v_exam_id::text, 1));",
    ),
    Line("book_seat", f"where e.id = v_exam_id{_LOCKED};", "where e.id = v_exam_id;"),
)
EXAM_LOCK_OF_MOVING = (Line("lock_booking", f"order by e.id{_LOCKED};", "order by e.id;"),)
SEAT_CHECK = (_constraint("mock_exams", "mock_exams_seats_within_capacity"),)

CONTACT_LOCK_OF_BOOKING = (
    Line(
        "book_seat",
        f"c.merged_into is null and c.archived_at is null{_LOCKED};",
        "c.merged_into is null and c.archived_at is null;",
    ),
)
CONTACT_LOCK_OF_OVERLAP = (Line("refuse_overlap", f"where c.id = new.contact_id{_LOCKED};", "where true;"),)
OVERLAP_CHECK = (
    Unguard("alter table tallybook.bookings disable trigger bookings_no_overlap_on_insert"),
    Unguard("alter table tallybook.bookings disable trigger bookings_no_overlap_on_update"),
)
DAY_INDEX = (Unguard("drop index tallybook.bookings_one_live_per_day_and_type"),)
EXAM_INDEX = (
    Unguard("drop index tallybook.bookings_one_live_per_exam"),
    _constraint("bookings", "bookings_ordinal_key"),
    _constraint("bookings", "bookings_idempotency_key_key"),
)
BALANCE_CHECKS = (
    _constraint("credit_balances", "credit_balances_balance_is_not_negative"),
    _constraint("credit_balances", "credit_balances_held_within_balance"),
    _constraint("credit_entries", "credit_entries_balance_after_is_not_negative"),
)

BOOKING_LOCKS = (
    Line("lock_booking", f"where c.id = v_before.contact_id{_LOCKED};", "where true;"),
    *EXAM_LOCK_OF_MOVING,
    Line("lock_booking", f"where b.id = p_booking_id{_LOCKED};", "where b.id = p_booking_id;"),
)
ONE_REFUND_PER_SPEND = (_constraint("credit_entries", "credit_entries_reverses_entry_id_key"),)
SORTED_EXAM_LOCKS = (
    Line(
        "lock_booking",
        "order by e.id for no key update;",
        "order by e.id <> v_before.mock_exam_id for no key update;",
    ),
)

KEY_LOCK = (
    Line(
        "begin_request",
        "perform pg_catalog.pg_advisory_xact_lock(\n"
        "            pg_catalog.hashtextextended(pg_catalog.concat_ws(chr(31), p_credential, p_contact_id,"
        " p_route, p_key), 7));",
        "null;",
    ),
)
UNIQUE_TEXT = (
    Line("insert_booking", "on conflict on constraint bookings_booking_id_key do nothing"),
    _constraint("bookings", "bookings_booking_id_key"),
)

# A balance that is read, changed and written back, as the old systems did.
RELATIVE_CHANGE = (
    Line(
        "post_entry",
        "update tallybook.credit_balances b\n    set balance = b.balance + new.delta,",
        "update tallybook.credit_balances b\n"
        "    set balance = (select x.balance from tallybook.credit_balances x"
        " where x.contact_id = new.contact_id and x.credit_type = new.credit_type) + new.delta,",
    ),
)
# The same with a moment of work in between, so that two meet there sooner or later whatever else they do.
READ_WORK_WRITE = (
    Line(
        "post_entry",
        "update tallybook.credit_balances b\n    set balance = b.balance + new.delta,",
        "perform pg_catalog.set_config('tallybook.seen', (select x.balance::text"
        " from tallybook.credit_balances x where x.contact_id = new.contact_id"
        " and x.credit_type = new.credit_type), true);\n"
        "    perform pg_catalog.pg_sleep(0.005);\n"
        "    update tallybook.credit_balances b\n"
        "    set balance = pg_catalog.current_setting('tallybook.seen')::integer + new.delta,",
    ),
)
# It would stop a lost change loudly, and the control has to see the quiet one.
UNIQUE_SEQ = (_constraint("credit_entries", "credit_entries_seq_key"),)
CONTACT_LOCK_OF_GRANT = (
    Line("adjust_credits", f"c.merged_into is null{_LOCKED};", "c.merged_into is null;"),
)
CONTACT_LOCKS_OF_ABSORB = (
    Line("absorb_contacts", f"order by c.id{_LOCKED};\n\n", "order by c.id;\n\n"),
    Line("absorb_contacts", f"order by c.id{_LOCKED};\n", "order by c.id;\n"),
)


async def remove(superuser, *guards):
    """Takes guards away in this test's database."""
    for guard in guards:
        if isinstance(guard, Unguard):
            await superuser.execute(guard.statement)
            continue
        cursor = await superuser.execute(
            "select pg_get_functiondef(oid) from pg_proc"
            " where pronamespace = 'tallybook'::regnamespace and proname = %s",
            (guard.function,),
        )
        ((definition,),) = await cursor.fetchall()
        assert guard.text in definition, f"{guard.function} has no such guard any more: {guard.text}"
        await superuser.execute(sql.SQL(definition.replace(guard.text, guard.instead)))
