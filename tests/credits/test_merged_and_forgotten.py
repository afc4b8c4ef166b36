"""What becomes of charges, holds, packs and keys when two people become one, or one is forgotten."""

import asyncio
import json
from uuid import uuid4

import pytest

from credits.test_metered_rules import APP, DOCX, available, charge, hold, person, read
from support.factories import make_local_contact
from tallybook.domain.errors import ContactNotFound, HoldNotFound
from tallybook.usecases.charge_actions import charge_actions
from tallybook.usecases.close_hold import capture_hold
from tallybook.usecases.create_contact import create_contact
from tallybook.usecases.erase_contact import erase_contact
from tallybook.usecases.hold_credits import hold_credits
from tallybook.usecases.idempotency import Idempotency
from tallybook.usecases.refund_use import refund_use

CHARGE = Idempotency("k", "POST /api/credits/charge", b"1")
CAPTURE = Idempotency("k", "POST /api/credits/holds/{hold}/capture", b"1")


async def merge(owner, loser, survivor):
    await owner.execute("select tallybook.merge_contact(%s, %s, 'test')", (loser, survivor))


async def test_a_repeat_after_a_merge_charges_nothing_again(db, owner):
    loser, survivor = await person(db, 10), await person(db, 10)
    first = await charge_actions(db, contact=loser, actions=DOCX, actor=APP, idempotency=CHARGE)
    await merge(owner, loser, survivor)
    again = await charge_actions(db, contact=loser, actions=DOCX, actor=APP, idempotency=CHARGE)
    assert (again.replayed, read(again)) == (True, read(first))
    assert await available(db, survivor) == 15


async def test_a_repeat_after_a_merge_holds_nothing_again(db, owner):
    loser, survivor = await person(db, 10), await person(db, 10)
    given = {"contact": loser, "actions": DOCX, "actor": APP, "idempotency": CHARGE}
    first = await hold_credits(db, **given)
    await merge(owner, loser, survivor)
    assert read(await hold_credits(db, **given)) == read(first)
    done = await capture_hold(db, hold=read(first)["id"], actor=APP, idempotency=CAPTURE)
    assert (read(done)["contact_id"], read(done)["balances"]["credits"]) == (survivor, 15)


async def test_a_capture_before_a_merge_is_answered_again_after_it(db, owner):
    loser, survivor = await person(db, 10), await person(db, 10)
    held = await hold(db, loser)
    first = await capture_hold(db, hold=held["id"], actor=APP, idempotency=CAPTURE)
    await merge(owner, loser, survivor)
    again = await capture_hold(db, hold=held["id"], actor=APP, idempotency=CAPTURE)
    assert (again.replayed, read(again)) == (True, read(first))
    refund = read(await refund_use(db, entry_id=read(first)["entry_ids"][0], actor=APP))
    assert (refund["contact_id"], refund["balances"]["credits"]) == (survivor, 20)


async def test_one_key_at_both_contacts_never_charges_a_third_time(db, owner):
    loser, survivor = await person(db, 10), await person(db, 10)
    for contact in (loser, survivor):
        await charge_actions(db, contact=contact, actions=DOCX, actor=APP, idempotency=CHARGE)
    await merge(owner, loser, survivor)
    again = await charge_actions(db, contact=loser, actions=DOCX, actor=APP, idempotency=CHARGE)
    assert (again.replayed, await available(db, survivor)) == (True, 10)


async def test_a_charge_that_waited_for_a_merge_goes_to_the_survivor_with_its_key(db, owner):
    loser, survivor = await person(db, 10), await person(db, 10)
    async with owner.transaction():
        await merge(owner, loser, survivor)
        first = asyncio.create_task(
            charge_actions(db, contact=loser, actions=DOCX, actor=APP, idempotency=CHARGE)
        )
        await _until_somebody_waits(owner)
    assert not (await first).replayed
    again = await charge_actions(db, contact=survivor, actions=DOCX, actor=APP, idempotency=CHARGE)
    assert (again.replayed, await available(db, survivor)) == (True, 15)


async def _until_somebody_waits(owner):
    async with asyncio.timeout(5):
        while True:
            cursor = await owner.execute("select 1 from pg_locks where not granted")
            if await cursor.fetchone():
                return
            await asyncio.sleep(0.01)


async def test_who_was_forgotten_pays_nothing_and_what_was_said_of_them_is_gone(db, owner):
    contact = await make_local_contact(db, credits={"credits": 20})
    said = {"file": "the will of Ada Lovelace"}
    await create_contact(
        db, email=contact.email, firstname=None, lastname=None, external_id="ada-17", actor=APP
    )
    await charge(db, str(contact.id), metadata=said)
    held = await hold(db, str(contact.id), metadata=said)
    await erase_contact(db, contact=str(contact.id), reason="asked", actor="staff:test")
    with pytest.raises(HoldNotFound):
        await capture_hold(db, hold=held["id"], actor=APP)
    with pytest.raises(ContactNotFound):
        await charge(db, str(contact.id))
    cursor = await owner.execute(
        """select (select count(*) from tallybook.credit_uses where metadata is not null)
            + (select count(*) from tallybook.hold_uses where metadata <> '{}')
            + (select count(*) from tallybook.contact_aliases where kind = 'external_id')"""
    )
    assert await cursor.fetchone() == (0,)


async def test_a_person_hubspot_brings_at_the_same_moment_is_found(db, owner):
    email = f"{uuid4().hex}@example.org"
    async with owner.transaction():
        await owner.execute("insert into tallybook.contacts (email) values (%s)", (email,))
        found = asyncio.create_task(
            create_contact(db, email=email, firstname=None, lastname=None, external_id=None, actor=APP)
        )
        await _until_somebody_waits(owner)
    answer = await found
    assert (answer.outcome, json.loads(answer.data)["balances"]["credits"]) == ("already", 0)
