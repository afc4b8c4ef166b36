"""One student, one exam, one key, many requests at the same moment: exactly one of them counts."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from races.barrier import at_once, changes, deadlocks, granting, live, open_pool, rows, told_by, words
from support.factories import (
    balances,
    book,
    cancel,
    make_contact,
    make_contacts,
    make_mock_exam,
    move,
    remote_contact,
    seats_taken,
)
from tallybook.usecases.absorb_contacts import absorb_contacts


@pytest.fixture
async def wide(database_uri):
    """The application's way to the test's database over 32 open connections."""
    async with open_pool(database_uri) as database:
        yield database


async def test_400_students_for_30_seats(wide, owner):
    """30 get a seat, 370 are told that it is full, 30 credits are spent and 370 are left."""
    exam = await make_mock_exam(wide, capacity=30)
    crowd = await make_contacts(wide, 400, credits={"sj_credits": 1})

    told = words(await at_once(*(book(wide, each, exam) for each in crowd)))

    ((spends, spent),) = await rows(
        owner, "select count(*), sum(-delta) from tallybook.credit_entries where reason = 'booking'"
    )
    ((left,),) = await rows(owner, "select sum(balance) from tallybook.credit_balances")
    print(f"400 students, 30 seats: {dict(told)}; spends {spends}, spent {spent}, left {left}")
    assert told == {"created": 30, "EXAM_FULL": 370}
    assert (spends, spent, left) == (30, 30, 370)
    assert await seats_taken(wide, exam) == 30
    assert await live(owner, exam) == 30


async def test_one_credit_books_one_of_ten_exams(wide, owner):
    """Ten exams on ten days asked for at once with one credit: one booking, nine refusals."""
    contact = await make_contact(wide, credits={"sj_credits": 1})
    exams = [await make_mock_exam(wide, days=day) for day in range(7, 17)]

    told = words(await at_once(*(book(wide, contact, each) for each in exams)))

    print(f"one credit, ten exams: {dict(told)}")
    assert told == {"created": 1, "INSUFFICIENT_CREDITS": 9}
    assert await changes(owner, contact) == [(-1, "booking")]


async def test_twenty_cancellations_give_one_refund(wide, owner):
    """One cancels, nineteen are told what the first one gave back; the credit comes back once."""
    contact = await make_contact(wide, credits={"sj_credits": 1})
    exam = await make_mock_exam(wide)
    booking = await book(wide, contact, exam)

    results = await at_once(*(cancel(wide, contact, booking) for _ in range(20)))

    print(f"20 cancellations: {dict(words(results))}")
    assert words(results) == {"ok": 1, "already": 19}
    assert {each["credits_restored"] for _, each in results} == {1}
    assert await changes(owner, contact) == [(-1, "booking"), (1, "refund")]
    assert await seats_taken(wide, exam) == 0


async def test_one_key_books_once(wide, owner):
    """The same request with the same key twenty times at once: one booking, one answer for all."""
    contact = await make_contact(wide, credits={"sj_credits": 20})
    exam = await make_mock_exam(wide)

    results = await at_once(*(book(wide, contact, exam, key="once") for _ in range(20)))

    replays = Counter(each["_replayed"] for _, each in results)
    print(f"one key, 20 requests: {dict(words(results))}, replayed: {dict(replays)}")
    assert words(results) == {"created": 20}
    assert replays == {False: 1, True: 19}
    assert all(each | {"_replayed": False} == results[0][1] | {"_replayed": False} for _, each in results)
    assert await changes(owner, contact) == [(-1, "booking")]


async def test_one_key_grants_once(wide, owner):
    """Also a grant, which no state would recognise as a repetition, happens once for one key."""
    contact = await make_contact(wide, credits={"sj_credits": 1})

    results = await at_once(*(granting(wide, contact, 5, key="once") for _ in range(20)))

    assert Counter(each["_replayed"] for _, each in results) == {False: 1, True: 19}
    assert [delta for delta, _ in await changes(owner, contact)] == [5]


async def test_one_key_for_two_requests_is_refused(wide):
    """Two bodies under one key at once: the first one wins, the other one is told."""
    contact = await make_contact(wide, credits={"sj_credits": 5})
    exams = [await make_mock_exam(wide), await make_mock_exam(wide, days=8)]

    told = words(
        await at_once(
            *(
                book(wide, contact, exam, key="twice", fingerprint=exam.id.bytes)
                for exam in exams
                for _ in range(5)
            )
        )
    )

    print(f"one key, two bodies: {dict(told)}")
    assert told == {"created": 5, "IDEMPOTENCY_KEY_REUSED": 5}


async def test_a_held_key_is_in_progress(wide, owner):
    """Who finds the key held waits two seconds, is told so, and nothing is booked."""
    contact = await make_contact(wide, credits={"sj_credits": 1})
    exam = await make_mock_exam(wide)
    await owner.execute("begin")
    await rows(
        owner,
        "select pg_advisory_xact_lock(hashtextextended(concat_ws(chr(31), %s::text, %s::uuid, %s::text,"
        " %s::text), 7))",
        f"student:{contact.id}",
        contact.id,
        "POST /api/bookings/create",
        "held",
    )
    before = time.monotonic()

    refused, _ = await told_by(book(wide, contact, exam, key="held"))

    waited = time.monotonic() - before
    print(f"a held key: {refused} after {waited:.2f} s")
    await owner.execute("rollback")
    assert refused == "IDEMPOTENCY_IN_PROGRESS"
    assert 1.9 < waited < 4
    assert await seats_taken(wide, exam) == 0
    assert (await book(wide, contact, exam, key="held"))["_outcome"] == "created"


async def test_a_double_click_books_once(wide, owner):
    """Twenty clicks without a key: one booking, and nineteen are shown it."""
    contact = await make_contact(wide, credits={"sj_credits": 20})
    exam = await make_mock_exam(wide)

    results = await at_once(*(book(wide, contact, exam) for _ in range(20)))

    print(f"20 clicks: {dict(words(results))}")
    assert words(results) == {"created": 1, "already": 19}
    assert len({each["id"] for _, each in results}) == 1
    assert await changes(owner, contact) == [(-1, "booking")]


async def test_of_two_overlapping_exams_one_is_booked(wide, owner):
    """Different types at overlapping hours, asked for at once: the second one is a conflict."""
    contact = await make_contact(wide, credits={"sj_credits": 5, "cs_credits": 5})
    one = await make_mock_exam(wide)
    other = await make_mock_exam(wide, mock_type="Clinical Skills", start="11:00", end="14:00")

    told = words(await at_once(book(wide, contact, one), book(wide, contact, other)))

    assert told == {"created": 1, "TIME_CONFLICT": 1}
    assert await live(owner, one) + await live(owner, other) == 1


async def test_two_contacts_with_one_student_id_get_different_texts(wide):
    """Both book the same exam at once: one has the text, the other the text and (2)."""
    exam = await make_mock_exam(wide)
    twins = [await make_contact(wide, student_id="TWIN", credits={"sj_credits": 1}) for _ in range(2)]

    results = await at_once(*(book(wide, each, exam) for each in twins))

    first, second = sorted(each["booking_id"] for _, each in results)
    assert second == f"{first} (2)"


async def test_swaps_pass_no_capacity_and_do_not_deadlock(wide, owner):
    """Ten in each of two exams with 12 seats change sides at once: nobody is lost, no exam is too full."""
    exams = [await make_mock_exam(wide, capacity=12), await make_mock_exam(wide, days=8, capacity=12)]
    sides = [await make_contacts(wide, 10, credits={"sj_credits": 1}) for _ in exams]
    held = [
        (who, await book(wide, who, exam), goal)
        for side, exam, goal in zip(sides, exams, reversed(exams), strict=True)
        for who in side
    ]

    told = words(await at_once(*(move(wide, *each) for each in held)))

    seats = [await seats_taken(wide, each) for each in exams]
    print(f"20 swaps: {dict(told)}, seats {seats}")
    assert set(told) <= {"ok", "EXAM_FULL"}
    assert told["ok"] > 0
    assert sum(seats) == 20
    assert max(seats) <= 12
    assert seats == [await live(owner, each) for each in exams]
    await wide.close()
    assert await deadlocks(owner) == 0


async def test_moving_in_while_others_fill_the_exam(wide, owner):
    """20 movers and 20 new students for 10 seats: ten get in, and who does not move keeps the old seat."""
    start, goal = await make_mock_exam(wide, capacity=20), await make_mock_exam(wide, days=8, capacity=10)
    movers = await make_contacts(wide, 20, credits={"sj_credits": 1})
    others = await make_contacts(wide, 20, credits={"sj_credits": 1})
    held = [await book(wide, each, start) for each in movers]

    told = words(
        await at_once(
            *(move(wide, who, what, goal) for who, what in zip(movers, held, strict=True)),
            *(book(wide, each, goal) for each in others),
        )
    )

    print(f"20 movers and 20 students for 10 seats: {dict(told)}")
    assert told["created"] + told["ok"] == 10
    assert told["EXAM_FULL"] == 30
    assert await live(owner, goal) == 10
    assert await live(owner, start) == 20 - told["ok"]


async def test_grants_edits_and_bookings_all_count(wide, owner):
    """The balance is the sum of ten grants, HubSpot's rise from 10 to 30 and five bookings."""
    contact = await make_contact(wide, credits={"sj_credits": 10})
    exams = [await make_mock_exam(wide, days=day) for day in range(7, 12)]
    now = datetime.now(UTC)

    async def absorbing(step):
        shown = remote_contact(
            hubspot_id=contact.hubspot_id,
            student_id=contact.student_id,
            email=contact.email,
            credits={"sj_credits": 10 + 2 * step},
            updated_at=now + timedelta(seconds=step),
        )
        await absorb_contacts(wide, [shown], first_reason="import")
        return await granting(wide, contact, 1, key=str(uuid4()))

    told = words(
        await at_once(
            *(absorbing(step) for step in range(1, 11)),
            *(book(wide, contact, each) for each in exams),
        )
    )

    found = await changes(owner, contact)
    print(f"grants, edits, bookings: {dict(told)}, {len(found)} changes, sum {sum(d for d, _ in found)}")
    assert told == {"created": 15}
    assert [delta for delta, reason in found if reason == "booking"] == [-1] * 5
    assert sum(delta for delta, reason in found if reason == "crm_edit") == 20
    assert (await balances(wide, contact))["sj_credits"] == 10 + 10 + 20 - 5
