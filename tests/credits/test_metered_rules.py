"""Checking, charging, holding, capturing, releasing and refunding, each as one decision."""

import asyncio
import json
from uuid import uuid4

import pytest

from support.factories import make_local_contact
from tallybook.domain.errors import (
    ActionNotFound,
    AlreadyRefunded,
    ContactNotFound,
    EntryNotFound,
    HoldClosed,
    HoldNotFound,
    InsufficientCredits,
    ValidationError,
)
from tallybook.usecases.charge_actions import charge_actions
from tallybook.usecases.check_actions import check_actions
from tallybook.usecases.close_hold import capture_hold, release_hold
from tallybook.usecases.create_contact import create_contact
from tallybook.usecases.hold_credits import hold_credits
from tallybook.usecases.idempotency import Idempotency
from tallybook.usecases.metered import ActionUse
from tallybook.usecases.refund_use import refund_use
from tallybook.usecases.show_contact_credits import list_costs, list_entries, show_contact_credits

APP = "key:app"
DOCX = [ActionUse("docx_processing")]  # 5
AUDIO = [ActionUse("audio_upload")]  # 2


def read(answer):
    return json.loads(answer.data)


async def person(db, credits):  # noqa: A002 - the word of the catalog
    return str((await make_local_contact(db, credits={"credits": credits})).id)


async def charge(db, contact, actions=DOCX, **given):
    return read(await charge_actions(db, contact=contact, actions=actions, actor=APP, **given))


async def hold(db, contact, actions=DOCX, **given):
    return read(await hold_credits(db, contact=contact, actions=actions, actor=APP, **given))


async def available(db, contact):
    return read(await show_contact_credits(db, contact=contact))["balances"]["credits"]


def key(name, fingerprint=b"1"):
    return Idempotency(name, "POST /api/credits/charge", fingerprint)


async def test_a_charge_takes_what_the_catalog_says(db):
    contact = await person(db, 10)
    done = await charge(db, contact, metadata={"file": "a.docx"})
    assert (done["charged"], done["balances"]["credits"], len(done["entry_ids"])) == ({"credits": 5}, 5, 1)


async def test_several_actions_are_paid_all_or_none(db):
    contact = await person(db, 10)
    with pytest.raises(InsufficientCredits) as refused:
        await charge(db, contact, [ActionUse("docx_processing"), ActionUse("audio_upload", 3)])
    [short] = refused.value.details["credits"]
    assert (short["needed"], short["available"], refused.value.details["needed"]) == (11, 10, {"credits": 11})
    assert refused.value.details["what_helps"].startswith("1 more of")
    assert await available(db, contact) == 10
    done = await charge(db, contact, [ActionUse("docx_processing"), ActionUse("audio_upload", 2)])
    assert (len(done["entry_ids"]), done["balances"]["credits"]) == (2, 1)


async def test_a_refusal_tells_what_is_held_and_until_when(db):
    contact = await person(db, 7)
    held = await hold(db, contact)
    with pytest.raises(InsufficientCredits) as refused:
        await charge(db, contact)
    [line] = refused.value.details["credits"]
    assert (line["available"], line["held"], line["held_until"]) == (2, 5, held["expires_at"])
    assert f"or wait until {held['expires_at']}" in refused.value.details["what_helps"]
    with pytest.raises(InsufficientCredits) as refused:
        await charge(db, contact, [ActionUse("docx_processing", 2)])
    assert "wait" not in refused.value.details["what_helps"]


async def test_a_key_makes_a_repeat_safe(db):
    contact = await person(db, 10)
    first = await charge_actions(db, contact=contact, actions=DOCX, actor=APP, idempotency=key("k"))
    again = await charge_actions(db, contact=contact, actions=DOCX, actor=APP, idempotency=key("k"))
    assert (again.replayed, read(again)) == (True, read(first))
    assert await available(db, contact) == 5


async def test_twenty_at_once_with_one_key_charge_once(db):
    contact = await person(db, 100)
    answers = await asyncio.gather(
        *(
            charge_actions(db, contact=contact, actions=DOCX, actor=APP, idempotency=key("k"))
            for _ in range(20)
        )
    )
    assert sum(not answer.replayed for answer in answers) == 1
    assert await available(db, contact) == 95


async def test_a_dry_run_says_the_same_and_keeps_nothing(db):
    contact = await person(db, 10)
    said = await charge(db, contact, dry_run=True)
    assert (said["dry_run"], said["entry_ids"], said["balances"]["credits"]) == (True, [], 5)
    held = await hold(db, contact, dry_run=True)
    assert (held["dry_run"], "id" in held, held["held"]) == (True, False, {"credits": 5})
    real = await hold(db, contact)
    closed = read(await capture_hold(db, hold=real["id"], actor=APP, dry_run=True))
    assert (closed["status"], closed["charged"]) == ("captured", {"credits": 5})
    released = read(await release_hold(db, hold=real["id"], actor=APP, dry_run=True))
    assert released["status"] == "released"
    assert await available(db, contact) == 5
    entry = read(await capture_hold(db, hold=real["id"], actor=APP))["entry_ids"][0]
    assert read(await refund_use(db, entry_id=entry, actor=APP, dry_run=True))["credits_restored"] == 5
    assert await available(db, contact) == 5


async def test_capturing_a_part_gives_back_the_rest(db):
    contact = await person(db, 10)
    held = await hold(db, contact, DOCX)
    done = read(await capture_hold(db, hold=held["id"], actor=APP, credits=2))
    assert (done["status"], done["charged"], done["balances"]["credits"]) == ("captured", {"credits": 2}, 8)


async def test_a_hold_of_several_actions_is_captured_line_by_line(db):
    contact = await person(db, 10)
    held = await hold(db, contact, [*DOCX, *AUDIO])
    done = read(await capture_hold(db, hold=held["id"], actor=APP, credits=6))
    assert (len(done["entry_ids"]), done["charged"]) == (2, {"credits": 6})
    rows = read(await list_entries(db, contact=contact, page=1, per_page=10, action=None))["data"]
    assert [(row["action"], row["delta"]) for row in rows[:2]] == [
        ("audio_upload", -1),
        ("docx_processing", -5),
    ]


async def test_more_than_held_is_not_captured(db):
    contact = await person(db, 10)
    held = await hold(db, contact)
    with pytest.raises(ValidationError):
        await capture_hold(db, hold=held["id"], actor=APP, credits=6)
    assert await available(db, contact) == 5


@pytest.mark.parametrize("first", ["capture", "release"])
async def test_a_closed_hold_stays_closed(db, first):
    contact = await person(db, 10)
    held = await hold(db, contact)
    end = {"capture": capture_hold, "release": release_hold}
    await end[first](db, hold=held["id"], actor=APP)
    for other in end.values():
        with pytest.raises(HoldClosed):
            await other(db, hold=held["id"], actor=APP)


async def test_capturing_releasing_and_expiring_at_once_has_one_winner(db, owner):
    contact = await person(db, 500)
    for _ in range(20):
        held = await hold(db, contact)
        results = await asyncio.gather(
            *(end(db, hold=held["id"], actor=APP) for end in [capture_hold, release_hold] * 5),
            return_exceptions=True,
        )
        assert sum(not isinstance(each, Exception) for each in results) == 1
        assert sum(isinstance(each, HoldClosed) for each in results) == 9


async def test_an_overdue_hold_cannot_be_captured_although_nobody_swept(db, owner):
    contact = await person(db, 5)
    held = await hold(db, contact)
    await owner.execute("update tallybook.credit_holds set expires_at = clock_timestamp()")
    with pytest.raises(HoldClosed) as refused:
        await capture_hold(db, hold=held["id"], actor=APP)
    assert refused.value.details["closed_as"] == "expired"
    assert await available(db, contact) == 5


async def test_what_is_overdue_can_be_spent_although_nobody_swept(db, owner):
    contact = await person(db, 5)
    await hold(db, contact)
    await owner.execute("update tallybook.credit_holds set expires_at = clock_timestamp()")
    assert (await charge(db, contact))["balances"]["credits"] == 0


async def test_a_hold_that_ends_while_its_contact_is_decided_about_still_counts(db, owner):
    """Between the lock, which gave back what was overdue, and the counting."""
    contact = await person(db, 5)
    await hold(db, contact)
    await owner.execute("create temporary table found (refusal text, held integer)")
    await owner.execute(f"""
        do $$ begin
            perform tallybook.lock_payer('{contact}');
            update tallybook.credit_holds set expires_at = clock_timestamp();
            insert into found select r.refusal, tallybook.held_now(b)
            from tallybook.credit_balances b, tallybook.payment_refusal('{contact}', '{{"credits": 1}}') r
            where b.contact_id = '{contact}' and b.credit_type = 'credits';
        end $$""")
    found = await (await owner.execute("select refusal, held from found")).fetchone()
    assert found == ("INSUFFICIENT_CREDITS", 5)


async def test_the_sweeper_gives_back_overdue_holds(db, owner):
    contacts = [await person(db, 5) for _ in range(3)]
    for contact in contacts:
        await hold(db, contact)
    await owner.execute("update tallybook.credit_holds set expires_at = clock_timestamp()")
    assert (await db.fetch_one("sweep_holds", {"limit": 2}))[0] == 2
    assert (await db.fetch_one("sweep_holds", {"limit": 2}))[0] == 1
    assert (await db.fetch_one("sweep_holds", {"limit": 2}))[0] == 0


async def test_the_price_of_a_hold_stands_when_the_cost_changes(db, owner):
    contact = await person(db, 10)
    held = await hold(db, contact)
    await owner.execute(
        "update tallybook.metered_actions set cost_credits = 9 where name = 'docx_processing'"
    )
    assert read(await capture_hold(db, hold=held["id"], actor=APP))["charged"] == {"credits": 5}


async def test_a_refund_reverses_one_entry_once(db):
    contact = await person(db, 10)
    [entry] = (await charge(db, contact))["entry_ids"]
    results = await asyncio.gather(
        *(refund_use(db, entry_id=entry, actor=APP) for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(each, AlreadyRefunded) for each in results) == 9
    assert await available(db, contact) == 10


async def test_nobody_closes_or_refunds_what_another_program_did(db):
    contact = await person(db, 20)
    held = await hold(db, contact)
    [entry] = (await charge(db, contact))["entry_ids"]
    with pytest.raises(HoldNotFound):
        await capture_hold(db, hold=held["id"], actor="key:other")
    with pytest.raises(EntryNotFound):
        await refund_use(db, entry_id=entry, actor="key:other")


async def test_a_grant_is_no_charge_to_refund(db):
    contact = await person(db, 20)
    rows = read(await list_entries(db, contact=contact, page=1, per_page=10, action=None))["data"]
    with pytest.raises(EntryNotFound):
        await refund_use(db, entry_id=rows[-1]["id"], actor="cli:test")


async def test_unknown_things_are_named(db):
    contact = await person(db, 20)
    with pytest.raises(ActionNotFound) as refused:
        await charge(db, contact, [ActionUse("mining")])
    assert refused.value.details["action"] == "mining"
    with pytest.raises(ContactNotFound):
        await charge(db, str(uuid4()))
    with pytest.raises(ContactNotFound):
        await check_actions(db, contact="email:nobody@example.com", actions=DOCX)
    for unknown in (str(uuid4()), "x"):
        with pytest.raises(HoldNotFound):
            await capture_hold(db, hold=unknown, actor=APP)


async def test_a_check_tells_without_setting_aside(db):
    contact = await person(db, 6)
    yes = read(await check_actions(db, contact=contact, actions=DOCX))
    no = read(await check_actions(db, contact=contact, actions=[ActionUse("docx_processing", 2)]))
    assert (yes["allowed"], no["allowed"], no["needed"]) == (True, False, {"credits": 10})
    assert (yes["what_helps"], no["what_helps"]) == (None, "4 more of: Credits")


async def test_with_credits_for_seven_exactly_seven_of_a_hundred_get_through(db):
    contact = await person(db, 7 * 5 + 4)
    results = await asyncio.gather(*(hold(db, contact) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(each, dict) for each in results) == 7
    assert sum(isinstance(each, InsufficientCredits) for each in results) == 93


async def test_people_are_found_or_made_once_with_their_welcome(db, owner):
    await owner.execute("update tallybook.credit_types set welcome_credits = 100 where name = 'credits'")
    made = await asyncio.gather(
        *(
            create_contact(
                db, email=" New@Example.com", firstname="N", lastname=None, external_id="u1", actor=APP
            )
            for _ in range(10)
        )
    )
    assert sorted(each.outcome for each in made) == ["already"] * 9 + ["created"]
    contact = read(made[0])["id"]
    assert {read(each)["id"] for each in made} == {contact}
    assert await available(db, contact) == 100
    moved = await create_contact(
        db, email="other@example.com", firstname=None, lastname=None, external_id="u1", actor=APP
    )
    assert (moved.outcome, read(moved)["id"]) == ("already", contact)


async def test_a_dry_run_of_a_new_person_makes_nobody(db):
    said = await create_contact(
        db, email="new@example.com", firstname=None, lastname=None, external_id=None, actor=APP, dry_run=True
    )
    assert read(said)["created"] is True
    with pytest.raises(ContactNotFound):
        await show_contact_credits(db, contact="email:new@example.com")


async def test_the_history_is_the_ledger_with_what_was_said_about_it(db):
    contact = await person(db, 20)
    [entry] = (await charge(db, contact, metadata={"file": "ä.docx"}))["entry_ids"]
    await refund_use(db, entry_id=entry, actor=APP)
    page = read(await list_entries(db, contact=contact, page=1, per_page=10, action="docx_processing"))
    assert [(row["reason"], row["delta"], row["metadata"]) for row in page["data"]] == [
        ("refund", 5, {"file": "ä.docx"}),
        ("charge", -5, {"file": "ä.docx"}),
    ]


async def test_costs_are_listed_from_the_catalog(db):
    costs = read(await list_costs(db))
    assert {each["action"]: each["credits"] for each in costs["actions"]} == {
        "audio_upload": 2,
        "docx_processing": 5,
        "premium_export": 15,
        "txt_upload": 3,
    }
    assert [each["credits"] for each in costs["packs"]] == [500, 1500, 3500]


@pytest.mark.parametrize("metadata", [{"x": "y" * 9000}, {"x": "\0"}, {"x": "\ud800"}])
async def test_metadata_that_cannot_be_kept_is_refused(db, metadata):
    contact = await person(db, 20)
    with pytest.raises(ValidationError):
        await charge(db, contact, metadata=metadata)
    assert await available(db, contact) == 20


async def test_a_price_beyond_all_numbers_is_simply_too_much(db):
    contact = await person(db, 20)
    with pytest.raises(InsufficientCredits):
        await charge(db, contact, [ActionUse("premium_export", 1_000_000)] * 50)
