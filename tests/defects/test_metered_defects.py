"""What the old credit system lost on uploads, exports and payments, each under the rule that was broken."""

import asyncio
import json
from pathlib import Path

import pytest

from credits.test_payments import balance, checkout, event, refund, take
from support.factories import make_local_contact
from tallybook.api.action_requests import CheckBody, HoldBody
from tallybook.api.reading import ShapeReader
from tallybook.client import requires_credits
from tallybook.domain.errors import (
    ContactNotFound,
    InsufficientCredits,
    ValidationError,
)
from tallybook.usecases.charge_actions import charge_actions
from tallybook.usecases.close_hold import release_hold
from tallybook.usecases.hold_credits import hold_credits
from tallybook.usecases.metered import ActionUse

AUDIO = [ActionUse("audio_upload")]


async def payer(db, credits):  # noqa: A002 - the word of the catalog
    return str((await make_local_contact(db, credits={"credits": credits})).id)


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_nobody_sets_a_balance_with_a_public_key(as_role, db, role):
    """B1: an UPDATE policy let anybody who had signed in write a million credits."""
    contact = await payer(db, 2)
    connection = await as_role(role)
    for statement in (
        "update tallybook.credit_balances set balance = 1000000",
        f"insert into tallybook.credit_uses values (1, '{contact}', 'audio_upload', 1, null)",
        f"select tallybook.take_payment_event('e', 'paid', 'p', 'i', '{contact}', 'starter', null)",
    ):
        with pytest.raises(Exception, match="permission denied"):
            await connection.execute(statement)
    assert await balance(db, contact) == 2


async def test_n_uploads_with_credits_for_one_are_one_upload(db):
    """B4: check, work and deduction were apart, so all passed and `max(0, ...)` hid it."""
    contact = await payer(db, 2)
    results = await asyncio.gather(
        *(hold_credits(db, contact=contact, actions=AUDIO, actor="key:a") for _ in range(20)),
        *(charge_actions(db, contact=contact, actions=AUDIO, actor="key:a") for _ in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, InsufficientCredits) for each in results) == 39


async def test_a_replayed_payment_event_grants_nothing(db):
    """B5: the duplicate check saw nothing, and a violation of its key was swallowed."""
    contact = await payer(db, 0)
    paid = checkout(contact)
    for _ in range(3):
        await take(db, paid)
    assert await balance(db, contact) == 500


async def test_a_payment_that_was_taken_is_credited_or_somebody_is_told(db, owner):
    """B6: crediting as nobody was UPDATE 0, and nobody heard of it."""
    with pytest.raises(ContactNotFound):
        await take(db, checkout("email:lost@example.org"))
    cursor = await owner.execute("select kind from tallybook.sync_alerts")
    assert await cursor.fetchall() == [("payment_refused",)]


async def test_only_what_was_paid_is_granted_and_what_was_refunded_is_taken_back(db):
    """B7: neither the payment's status nor refunds, disputes and late payments were looked at."""
    contact = await payer(db, 0)
    await take(db, checkout(contact, status="unpaid"))
    assert await balance(db, contact) == 0
    await take(db, checkout(contact))
    await take(db, refund(1))
    assert await balance(db, contact) == 0
    await take(db, checkout(contact, number=2))
    await take(db, event("charge.dispute.created", payment_intent="pi_2"))
    assert await balance(db, contact) == 0


async def test_the_pack_says_how_many_credits_not_the_checkout(db):
    """B7: the number of credits came from the session's metadata."""
    contact = await payer(db, 0)
    paid = checkout(contact)
    paid["data"]["object"]["metadata"] |= {"credits": "999999", "quantity": "9"}
    await take(db, paid)
    assert await balance(db, contact) == 500


@pytest.mark.parametrize("body", [CheckBody, HoldBody])
def test_a_client_does_not_say_what_an_action_costs(body):
    """B8: flags of the browser decided whether an export cost anything."""
    for field in ("credits", "cost", "exportAudioFlag", "free"):
        with pytest.raises(ValidationError):
            ShapeReader(body).from_json(
                json.dumps({"contact": "email:a@b.c", "action": "premium_export", field: 0}).encode()
            )


async def test_work_that_failed_is_not_paid(db):
    """B8: success was the absence of an exception; an answer of 500 was charged like any other."""
    contact = await payer(db, 2)
    held = json.loads((await hold_credits(db, contact=contact, actions=AUDIO, actor="key:a")).data)
    assert await balance(db, contact) == 0
    await release_hold(db, hold=held["id"], actor="key:a")
    assert await balance(db, contact) == 2


def test_no_answer_sends_a_browser_elsewhere():
    """B12: success and cancel addresses were taken from the client, an open redirect."""
    api = Path(requires_credits.__code__.co_filename).parents[1] / "api"
    assert not [file.name for file in api.glob("*.py") if 'b"location"' in file.read_text("utf-8").lower()]
