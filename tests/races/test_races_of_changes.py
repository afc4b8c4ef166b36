"""Grants, corrections and staff's edits in HubSpot while students book: every change counts, none is lost."""

from datetime import UTC, datetime, timedelta

import pytest

from races.crowd import at_once, booking_by, rows, tally
from races.guards import (
    BALANCE_CHECKS,
    CONTACT_LOCK_OF_BOOKING,
    CONTACT_LOCK_OF_GRANT,
    CONTACT_LOCK_OF_OVERLAP,
    CONTACT_LOCKS_OF_ABSORB,
    RELATIVE_CHANGE,
    TRIES,
    UNIQUE_SEQ,
)
from support.factories import balances, make_contact, make_mock_exam, remote_contact
from tallybook.postgres.answers import Answer
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.grant_credits import grant_credits

LOCKS = (
    CONTACT_LOCK_OF_BOOKING,
    CONTACT_LOCK_OF_OVERLAP,
    CONTACT_LOCK_OF_GRANT,
    CONTACT_LOCKS_OF_ABSORB,
)


def granting_by(wide, contact, number):
    """Staff grants so many credits, or takes them away."""
    return grant_credits(
        wide,
        contact=str(contact.id),
        credit_type="sj_credits",
        credits=number,
        reason="for the race",
        actor="cli:test",
    )


async def editing_by(wide, contact, shown, *, minutes):
    """Staff typed a number over in HubSpot, and we hear of it."""
    await absorb_contacts(
        wide,
        [
            remote_contact(
                hubspot_id=contact.hubspot_id,
                student_id=contact.student_id,
                email=contact.email,
                credits={"sj_credits": shown},
                updated_at=datetime.now(UTC) + timedelta(minutes=minutes),
            )
        ],
        first_reason="import",
    )
    return Answer(b"{}", "absorbed")


async def race_of_grants(wide):
    """Ten bookings, ten grants of 1 and ten corrections by -1 of one student with ten credits."""
    exams = [await make_mock_exam(wide, days=7 + n) for n in range(10)]
    ada = await make_contact(wide, credits={"sj_credits": 20})
    told = tally(
        await at_once(
            *(
                each
                for exam in exams
                for each in (
                    booking_by(wide, ada, exam),
                    granting_by(wide, ada, 3),
                    granting_by(wide, ada, -1),
                )
            )
        )
    )
    return told, ada, 20 - 10 + 30 - 10


async def test_grants_and_corrections_while_booking(wide):
    """20 - 10 bookings + 10 grants of 3 - 10 corrections = 30."""
    told, ada, expected = await race_of_grants(wide)

    left = (await balances(wide, ada))["sj_credits"]
    print(f"grants while booking: {dict(told)}, left: {left}")
    assert told == {"created": 30}
    assert left == expected == 30


async def race_of_edits(wide, *, base=20):
    """Staff types four numbers over, one after the other, while ten bookings run: told, student, expected.

    Each edit is the only one at its moment, as HubSpot shows it; the sum of its steps is what must count.
    """
    exams = [await make_mock_exam(wide, days=7 + n) for n in range(10)]
    ada = await make_contact(wide, credits={"sj_credits": base})
    typed = (base + 5, base + 2, base + 9, base + 7)
    told = tally([])
    for minute, (shown, start) in enumerate(zip(typed, (0, 3, 6, 8), strict=True), start=1):
        end = {0: 3, 3: 6, 6: 8, 8: 10}[start]
        told += tally(
            await at_once(
                *(booking_by(wide, ada, exam) for exam in exams[start:end]),
                editing_by(wide, ada, shown, minutes=minute),
                # The same answer again, as a webhook and a poll may both bring it.
                editing_by(wide, ada, shown, minutes=minute + 0.5),
            )
        )
    return told, ada, base - 10 + (typed[-1] - base)


async def test_edits_in_hubspot_while_booking(wide):
    """20 - 10 bookings + 7 that staff added in four edits, each heard twice = 17."""
    told, ada, expected = await race_of_edits(wide)

    left = (await balances(wide, ada))["sj_credits"]
    print(f"edits in HubSpot while booking: {dict(told)}, left: {left}")
    assert told == {"created": 10, "absorbed": 8}
    assert left == expected == 17


@pytest.mark.parametrize("race", [race_of_grants, race_of_edits], ids=["grants", "edits"])
@pytest.mark.broken_on_purpose
async def test_control_a_balance_that_is_read_and_written_back_loses_changes(wide, owner, without, race):
    """Negative control of the two races above: the balance is not the sum of its entries."""
    await without(*LOCKS, RELATIVE_CHANGE, BALANCE_CHECKS, UNIQUE_SEQ)
    for tries in range(1, TRIES + 1):
        _, ada, _ = await race(wide)
        left = (await balances(wide, ada))["sj_credits"]
        ((explained,),) = await rows(
            owner,
            "select sum(delta) from tallybook.credit_entries"
            " where (contact_id, credit_type) = (%s, 'sj_credits')",
            ada.id,
        )
        if left != explained:
            print(f"without the guards: {left} in the balance, {explained} in the ledger, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")
