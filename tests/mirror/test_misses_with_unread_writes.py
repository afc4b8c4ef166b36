"""A student whom HubSpot knows better than we do, while a write of ours has not been read back yet."""

import json
from functools import partial

import pytest

from support.factories import CATALOG, application
from tallybook.domain.contacts import Pair
from tallybook.hubspot.budget import CallKind
from tallybook.usecases.check_credits import check_credits
from tallybook.usecases.find_student import Students
from tallybook.usecases.grant_credits import grant_credits
from tallybook.usecases.guard_mirror import PortalGuard, demand_same_portal_to_read
from tallybook.usecases.pull_contacts import pull_contacts


@pytest.fixture
async def ada(portal, mirror, owner):
    """Her HubSpot id: 3 credits met, 2 granted, written and not read back; then a new address was typed."""
    properties = {"email": "old@example.com", "student_id": "ADA1", "sj_credits": "3"}
    hubspot_id = (await portal.post("edits", object_type="contacts", properties=properties))["id"]
    await pull_contacts(mirror, [hubspot_id], kind=CallKind.PULL)
    await grant_credits(
        mirror.db,
        contact=hubspot_id,
        credit_type="sj_credits",
        credits=2,
        reason="for a test",
        actor="cli:test",
    )
    await owner.execute("update tallybook.contacts set write_no = 1")
    written = {"sj_credits": "5", "tallybook_sync": "1 sj_credits=5"}
    answer = await portal.door.post(
        "/crm/objects/2026-09/contacts/batch/update",
        headers={"Authorization": "Bearer pat-test"},
        json={"inputs": [{"id": hubspot_id, "properties": written}]},
    )
    answer.raise_for_status()
    typed = {"email": "new@example.com", "sj_credits": "6"}
    await portal.post("edits", object_type="contacts", id=hubspot_id, properties=typed)
    return hubspot_id


async def ask(mirror, client):
    students = Students(client, mirror.db, CATALOG, PortalGuard(partial(demand_same_portal_to_read, mirror)))
    answer = await check_credits(
        mirror.db,
        students,
        caller=application(),
        pair=Pair("ADA1", "new@example.com"),
        mock_type="Situational Judgment",
    )
    return json.loads(answer.data)


async def test_the_histories_are_read_before_the_answer(ada, mirror, client):
    """The new address opens the door at once, and the number is the sum of both sides."""
    shown = await ask(mirror, client)
    assert shown["id"] is not None
    assert (shown["available_credits"], shown["source"]) == (6, "hubspot")


async def test_with_late_histories_hubspots_answer_stands_and_the_record_is_read_again(
    ada, portal, mirror, client, owner
):
    """Nobody is told that she is unknown; what cannot be stored yet is asked for again."""
    await portal.post("settings", history_lag_ms=60_000)
    shown = await ask(mirror, client)
    assert (shown["id"], shown["contact_id"], shown["available_credits"]) == (None, ada, 6)
    rows = await (
        await owner.execute(
            "select hubspot_id, next_attempt_at <= clock_timestamp() from tallybook.inbox"
            " where subscription_type = 'reread'"
        )
    ).fetchall()
    assert rows == [(ada, True)]
