"""When everything has arrived: polled facts, never a guess at how long it may take."""

import asyncio
import time

from proof.portal import TYPES

_WAITING = """
    select
        (select count(*) from tallybook.outbox where dead_at is null),
        (select count(*) from tallybook.inbox where dead_at is null),
        (select count(*) from tallybook.contacts where crm_unread and merged_into is null),
        (select count(*) from tallybook.outbox where dead_at is not null),
        (select count(*) from tallybook.inbox where dead_at is not null)
"""
_ABSORBED = {
    "contact": "select hubspot_id, crm_modified_at from tallybook.contacts"
    " where hubspot_id is not null and merged_into is null",
    "mock_exam": "select hubspot_id, crm_modified_at from tallybook.mock_exams where hubspot_id is not null",
    "booking": "select hubspot_id, crm_modified_at from tallybook.bookings where hubspot_id is not null",
}


class NeverSettled(Exception):
    """Something still waits; the message says what."""


async def settled(stage, portal, *, within_s, say=lambda _: None):
    """Returns the seconds it took until nothing waits and the newest of every record was absorbed."""
    began, told = time.monotonic(), 0.0
    while True:
        waits = await what_waits(stage, portal)
        if not waits:
            return time.monotonic() - began
        if time.monotonic() - began > within_s:
            raise NeverSettled(f"after {within_s:.0f} s: {waits}")
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(f"still waiting: {waits}")
        stage.revive()
        await asyncio.sleep(0.5)


async def what_waits(stage, portal):
    """{what: how many}, without what waits for nothing; dead letters are left to the audit."""
    ((outbox, inbox, unread, dead, dead_in),) = await stage.run(_WAITING)
    waits = {"outbox": outbox, "inbox": inbox, "unread": unread, "faults": len(await portal.faults_waiting())}
    if not any(waits.values()):
        for kind in TYPES:
            waits[f"{kind} not absorbed"] = len(await not_absorbed(stage, portal, kind))
    return {name: number for name, number in waits.items() if number} and (
        {name: number for name, number in waits.items() if number}
        | ({"dead letters": dead + dead_in} if dead + dead_in else {})
    )


async def not_absorbed(stage, portal, kind):
    """HubSpot ids whose newest state we have not taken in."""
    known = dict(await stage.run(_ABSORBED[kind]))
    found = await portal.everything(kind)
    return [
        hubspot_id
        for hubspot_id, record in found.items()
        if known.get(hubspot_id) is None or _ms(known[hubspot_id]) < _ms_of(record["updatedAt"])
    ]


def _ms(at):
    return round(at.timestamp() * 1000)


def _ms_of(text):
    from datetime import datetime

    return _ms(datetime.fromisoformat(text))
