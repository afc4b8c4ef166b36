"""The same idempotency key at once: one effect, one answer for everybody."""

import asyncio
import json
import time

import pytest

from races.crowd import at_once, booked, booking_by, ledger, live_bookings, moving_by, result_of, rows, tally
from races.guards import KEY_LOCK, TRIES
from support.factories import make_contact, make_mock_exam
from tallybook.usecases.grant_credits import grant_credits
from tallybook.usecases.idempotency import Idempotency

ROUTE = "POST /api/bookings/create"


async def test_one_key_twenty_times_at_once(wide, owner):
    """One booking and twenty equal answers, nineteen of them replayed."""
    exam, ada = await make_mock_exam(wide), await make_contact(wide, credits={"sj_credits": 20})

    results = await at_once(*(booking_by(wide, ada, exam, key="once") for _ in range(20)))

    print(f"one key 20 times: {dict(tally(results))}, replayed: {sum(each.replayed for each in results)}")
    assert tally(results) == {"created": 20}
    assert sum(each.replayed for each in results) == 19
    assert len({json.dumps(each.data, sort_keys=True) for each in results}) == 1
    assert await live_bookings(owner, contact=ada) == 1
    assert await ledger(owner, ada) == [(-1, "booking")]


@pytest.mark.broken_on_purpose
async def test_control_without_the_keys_lock_twenty_answers_differ(wide, without):
    """Negative control of the race above: a retry hears DUPLICATE_BOOKING about its own booking."""
    await without(KEY_LOCK)
    for tries in range(1, TRIES + 1):
        exam, ada = await make_mock_exam(wide), await make_contact(wide, credits={"sj_credits": 20})
        told = tally(await at_once(*(booking_by(wide, ada, exam, key="once") for _ in range(20))))
        if told != {"created": 20}:
            print(f"without the guard: {dict(told)}, at try {tries}")
            return
    pytest.fail("the guard was gone and nothing broke")


async def test_one_key_with_two_requests_serves_the_first_only(wide, owner):
    """Ten times one exam and ten times another under one key: one booking, ten answers, ten refusals."""
    exams = [await make_mock_exam(wide, days=days) for days in (7, 8)]
    ada = await make_contact(wide, credits={"sj_credits": 20})

    results = await at_once(
        *(booking_by(wide, ada, each, key="once", body=each.id.bytes) for _ in range(10) for each in exams)
    )

    print(f"one key, two requests: {dict(tally(results))}")
    assert tally(results) == {"created": 10, "IDEMPOTENCY_KEY_REUSED": 10}
    assert {each.word for each in results[::2]} != {each.word for each in results[1::2]}
    assert sum(each.replayed for each in results) == 9
    assert await live_bookings(owner, contact=ada) == 1


async def test_a_late_retry_of_a_move_moves_nothing_anew(wide, owner):
    """A key whose first answer was "it is there already" keeps it after the booking went elsewhere."""
    here, there = await make_mock_exam(wide), await make_mock_exam(wide, days=8)
    ada = await make_contact(wide, credits={"sj_credits": 1})
    booking = await booked(wide, ada, there)
    first = await result_of(moving_by(wide, ada, booking, there, key="late"))
    await result_of(moving_by(wide, ada, booking, here, key="other"))

    again = await at_once(*(moving_by(wide, ada, booking, there, key="late") for _ in range(5)))

    assert (first.word, first.replayed) == ("already", False)
    assert all((each.word, each.replayed, each.data) == ("already", True, first.data) for each in again)
    assert await live_bookings(owner, exam=here) == 1


async def race_of_grants(wide):
    """One grant of five credits is sent 20 times at once with one key: the answers and the student."""
    ada = await make_contact(wide, credits={"sj_credits": 1})
    key = Idempotency("gift", "POST /credits", b"5")
    grants = (
        grant_credits(
            wide,
            contact=str(ada.id),
            credit_type="sj_credits",
            credits=5,
            reason="a gift",
            actor="cli:test",
            idempotency=key,
        )
        for _ in range(20)
    )
    return await at_once(*grants), ada


async def test_one_grant_twenty_times_at_once_is_one_grant(wide, owner):
    """What no index can recognise as a repeat is recognised by its key."""
    results, ada = await race_of_grants(wide)

    assert sum(each.replayed for each in results) == 19
    assert await ledger(owner, ada) == [(5, "grant")]


@pytest.mark.broken_on_purpose
async def test_control_without_the_keys_lock_a_grant_counts_twice(wide, owner, without):
    """Negative control of the race above."""
    await without(KEY_LOCK)
    for tries in range(1, TRIES + 1):
        _, ada = await race_of_grants(wide)
        grants = len(await ledger(owner, ada))
        if grants > 1:
            print(f"without the guard: {grants} grants under one key, at try {tries}")
            return
    pytest.fail("the guard was gone and nothing broke")


async def running(connection, contact, exam, key):
    """Books with a key in a transaction that stays open."""
    await connection.execute("begin")
    ((answer,),) = await rows(
        connection,
        "select (tallybook.book_seat(%s, null, null, null, %s, null, null, %s, null,"
        " %s, %s, %s, '1', false)).data",
        contact.id,
        str(exam.id),
        *2 * [f"student:{contact.id}"],
        ROUTE,
        key,
    )
    return answer


async def test_a_key_in_use_is_waited_for_two_seconds(wide, owner, connect, database_uri):
    """Who comes while the first still runs waits up to two seconds, then hears that it is in progress."""
    exam, ada = await make_mock_exam(wide), await make_contact(wide, credits={"sj_credits": 2})
    first = await connect(database_uri)
    await running(first, ada, exam, "held")

    began = time.monotonic()
    result = await result_of(booking_by(wide, ada, exam, key="held"))
    waited_s = time.monotonic() - began
    await first.execute("rollback")
    after = await result_of(booking_by(wide, ada, exam, key="held"))

    print(f"a key in use: {result.word} after {waited_s:.2f} s")
    assert result.word == "IDEMPOTENCY_IN_PROGRESS"
    assert waited_s >= 1.9
    assert (after.word, after.replayed) == ("created", False)
    assert await live_bookings(owner, contact=ada) == 1


async def test_a_key_that_becomes_free_in_time_replays(wide, owner, connect, database_uri):
    """Ten who wait for the first get its answer as soon as it is there."""
    exam, ada = await make_mock_exam(wide), await make_contact(wide, credits={"sj_credits": 2})
    first = await connect(database_uri)
    answer = await running(first, ada, exam, "held")

    waiting = asyncio.gather(at_once(*(booking_by(wide, ada, exam, key="held") for _ in range(10))))
    while True:
        ((blocked,),) = await rows(
            owner, "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        )
        if blocked == 10:
            break
        await asyncio.sleep(0.01)
    await first.execute("commit")
    (results,) = await waiting

    assert all(each.replayed and each.data == answer for each in results)
    assert await live_bookings(owner, contact=ada) == 1


async def test_control_a_rolled_back_first_request_leaves_its_key_free(wide, connect, database_uri):
    """Control of the two above: what they wait for is the transaction, not a remembered key."""
    exam, ada = await make_mock_exam(wide), await make_contact(wide, credits={"sj_credits": 2})
    first = await connect(database_uri)
    await running(first, ada, exam, "held")
    waiting = asyncio.create_task(result_of(booking_by(wide, ada, exam, key="held")))
    await asyncio.sleep(0)
    await first.execute("rollback")

    result = await waiting
    assert (result.word, result.replayed) == ("created", False)
