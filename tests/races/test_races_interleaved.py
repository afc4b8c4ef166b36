"""Everything at once from several processes, then every number is proved."""

import os
from collections import Counter

import pytest

from races.crowd import rows
from races.guards import CONTACT_LOCK_OF_GRANT, READ_WORK_WRITE, UNIQUE_SEQ
from races.hubbub import REFUSALS_THAT_MAY_COME, task_of
from races.processes import ended, start, together
from support.factories import MIRRORED, make_contacts, make_mock_exam
from tallybook.usecases.verify import verify

SECONDS = float(os.environ.get("TALLYBOOK_RACE_S", "20"))
SUCCESSES = {"created", "already", "ok", "absorbed"}


async def small_world(db, *, students):
    """Few students and few seats, so that everybody gets in everybody's way."""
    contacts = await make_contacts(db, students, credits=dict.fromkeys(MIRRORED, 3))
    exams = [
        await make_mock_exam(db, mock_type=kind, days=days, start=begin, end=end, capacity=4)
        for kind in ("Situational Judgment", "Clinical Skills")
        for days, begin, end in (
            (7, "09:00", "12:00"),
            (7, "11:00", "14:00"),
            (8, "09:00", "12:00"),
            (9, "14:00", "17:00"),
            (10, "14:00", "17:00"),
        )
    ]
    return contacts, exams


async def everything_at_once(db, uri, *, seconds, students=16):
    """Two processes of four workers act for so long: how many were told what."""
    contacts, exams = await small_world(db, students=students)
    processes = [await start("interleave", uri) for _ in range(2)]
    tasks = [task_of(contacts, exams, seconds=seconds, seed=seed) for seed in range(2)]
    told = sum((Counter(each) for each in await together(processes, tasks)), Counter())
    await ended(processes)
    return told


async def test_book_cancel_move_grant_and_absorb_interleaved(wide, owner, database_uri, deadlocks):
    """Eight workers in two processes: only refusals that belong to the rules, no deadlock, and it adds up."""
    told = await everything_at_once(wide, database_uri, seconds=SECONDS)

    report = await verify(wide)
    ((refunds, moves),) = await rows(
        owner,
        "select (select count(*) from tallybook.credit_entries where reason = 'refund'),"
        " (select count(*) from tallybook.audit_log where action = 'booking.moved')",
    )
    met = await deadlocks(wide)
    print(f"{told.total()} requests in {SECONDS:.0f} s: {dict(told.most_common())}")
    print(f"entries {report.counts['entries']}, bookings {report.counts['bookings']}, deadlocks {met}")
    assert not report.violations, report.violations
    assert set(told) <= SUCCESSES | REFUSALS_THAT_MAY_COME, told
    assert refunds > 20
    assert moves > 20
    assert met == 0


@pytest.mark.broken_on_purpose
async def test_control_verify_finds_the_change_that_was_lost_on_the_way(wide, database_uri, without):
    """Negative control: with balances read and written back the same two processes leave wrong numbers."""
    await without(READ_WORK_WRITE, UNIQUE_SEQ, CONTACT_LOCK_OF_GRANT)

    for tries in range(1, 6):
        told = await everything_at_once(wide, database_uri, seconds=2.0, students=3)
        found = (await verify(wide)).violation_counts
        if "balances_are_explained" in found:
            print(f"without the guards: {dict(found)} after {told.total()} requests, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")
