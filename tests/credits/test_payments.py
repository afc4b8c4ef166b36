"""Packs bought with money: granted once, taken back once, and nobody but the provider can say so."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import stripe

from support.factories import make_local_contact
from tallybook.domain.errors import ContactNotFound, EntryNotFound, Unauthenticated, ValidationError
from tallybook.domain.payments import check_signature, parse_event
from tallybook.usecases.charge_actions import charge_actions
from tallybook.usecases.erase_contact import erase_contact
from tallybook.usecases.hold_credits import hold_credits
from tallybook.usecases.metered import ActionUse
from tallybook.usecases.show_contact_credits import show_contact_credits
from tallybook.usecases.take_payment_event import take_payment_event

SECRET = "whsec_test"
_numbers = count(1)


def event(kind, **thing):
    return {"id": f"evt_{next(_numbers)}", "type": kind, "data": {"object": thing}}


def checkout(contact, *, pack="starter", number=1, status="paid", kind="checkout.session.completed"):
    return event(
        kind,
        id=f"cs_{number}",
        payment_status=status,
        payment_intent=f"pi_{number}",
        metadata={"pack": pack, "contact": str(contact)},
    )


def refund(part, *, number=1):
    return event(
        "charge.refunded", payment_intent=f"pi_{number}", amount=499, amount_refunded=round(499 * part)
    )


async def take(db, given):
    return json.loads((await take_payment_event(db, parse_event(given))).data)["outcome"]


async def balance(db, contact):
    return json.loads((await show_contact_credits(db, contact=str(contact))).data)["balances"]["credits"]


@pytest.fixture
async def contact(db):
    return (await make_local_contact(db)).id


async def test_a_paid_checkout_grants_its_pack_once_per_event_and_per_payment(db, contact):
    paid = checkout(contact)
    outcomes = await asyncio.gather(*(take(db, paid) for _ in range(10)))
    assert sorted(outcomes) == ["done"] + ["nothing_to_do"] * 9
    again = checkout(contact, kind="checkout.session.async_payment_succeeded")
    assert await take(db, again) == "nothing_to_do"
    assert await balance(db, contact) == 500


async def test_an_open_payment_grants_nothing_until_it_is_paid(db, contact):
    assert await take(db, checkout(contact, status="unpaid")) == "nothing_to_do"
    assert await balance(db, contact) == 0
    assert await take(db, checkout(contact, kind="checkout.session.async_payment_succeeded")) == "done"
    assert await balance(db, contact) == 500


async def test_a_refund_takes_its_part_back_however_often_it_is_told(db, contact):
    await take(db, checkout(contact))
    half, whole = refund(0.5), refund(1)
    for given, left in ((half, 250), (half, 250), (whole, 0), (half, 0), (refund(1), 0)):
        await take(db, given)
        assert await balance(db, contact) == left


async def test_a_dispute_takes_everything_back_and_gives_it_again_when_won(db, contact):
    await take(db, checkout(contact))
    await charge_actions(db, contact=str(contact), actions=[ActionUse("docx_processing", 20)], actor="key:a")
    opened = event("charge.dispute.created", payment_intent="pi_1")
    assert await take(db, opened) == "done"
    assert await balance(db, contact) == 0
    assert (
        await take(db, event("charge.dispute.closed", payment_intent="pi_1", status="lost"))
        == "nothing_to_do"
    )
    won = event("charge.dispute.closed", payment_intent="pi_1", status="won")
    assert await take(db, won) == "done"
    assert await balance(db, contact) == 400


async def test_a_dispute_that_ends_before_it_opens_is_refused_until_it_has(db, contact):
    await take(db, checkout(contact))
    won = event("charge.dispute.closed", payment_intent="pi_1", status="won")
    with pytest.raises(EntryNotFound):
        await take(db, won)
    await take(db, event("charge.dispute.created", payment_intent="pi_1", status="needs_response"))
    assert await balance(db, contact) == 0
    assert await take(db, won) == "done"
    late = event("charge.dispute.funds_withdrawn", payment_intent="pi_1", status="won")
    assert await take(db, late) == "nothing_to_do"
    assert await balance(db, contact) == 500
    second = event("charge.dispute.created", id="dp_2", payment_intent="pi_1", status="needs_response")
    assert await take(db, second) == "done"
    assert await balance(db, contact) == 0


async def test_an_inquiry_takes_nothing_and_what_it_grows_into_does(db, contact):
    await take(db, checkout(contact))
    for name, status, left in (
        ("created", "warning_needs_response", 500),
        ("closed", "warning_closed", 500),
        ("funds_withdrawn", "needs_response", 0),
        ("created", "needs_response", 0),
        ("closed", "won", 500),
    ):
        await take(db, event(f"charge.dispute.{name}", payment_intent="pi_1", status=status))
        assert await balance(db, contact) == left


async def test_a_payment_follows_a_merge_and_ends_with_the_person(db, contact, owner):
    await take(db, checkout(contact))
    survivor = (await make_local_contact(db)).id
    await owner.execute("select tallybook.merge_contact(%s, %s, 'test')", (contact, survivor))
    await take(db, event("charge.dispute.created", payment_intent="pi_1"))
    assert await balance(db, survivor) == 0
    await erase_contact(db, contact=str(survivor), reason="asked", actor="staff:test")
    assert await take(db, event("charge.dispute.closed", payment_intent="pi_1", status="won")) == "done"


async def test_what_was_spent_or_is_held_is_not_taken_and_somebody_is_told(db, contact, owner):
    await take(db, checkout(contact))
    await hold_credits(db, contact=str(contact), actions=[ActionUse("docx_processing", 80)], actor="key:a")
    await take(db, refund(1))
    cursor = await owner.execute("select balance, held from tallybook.credit_balances where balance > 0")
    assert await cursor.fetchall() == [(400, 400)]
    cursor = await owner.execute("select details ->> 'missing_credits' from tallybook.sync_alerts")
    assert await cursor.fetchall() == [("400",)]


async def test_a_refund_that_comes_before_its_payment_is_refused_and_works_when_it_comes_again(db, contact):
    early = refund(1)
    with pytest.raises(EntryNotFound):
        await take(db, early)
    await take(db, checkout(contact))
    assert await take(db, early) == "done"
    assert await balance(db, contact) == 0


@pytest.mark.parametrize(
    ("given", "error"),
    [({"pack": "giant"}, ValidationError), ({"contact": "email:nobody@example.org"}, ContactNotFound)],
)
async def test_what_cannot_be_granted_is_written_down_and_alerts(db, contact, owner, given, error):
    with pytest.raises(error):
        await take(db, checkout(**{"contact": contact} | given))
    cursor = await owner.execute("select outcome, problem from tallybook.payment_events")
    assert await cursor.fetchall() == [("refused", error.code)]
    cursor = await owner.execute("select kind from tallybook.sync_alerts where cleared_at is null")
    assert await cursor.fetchall() == [("payment_refused",)]


async def test_other_things_an_account_sells_change_nothing(db):
    other = event("checkout.session.completed", id="cs_9", payment_status="paid", metadata={})
    assert await take(db, other) == "nothing_to_do"
    assert await take(db, event("charge.refunded", amount=1, amount_refunded=1)) == "nothing_to_do"
    assert await take(db, event("customer.created", id="cus_1")) == "nothing_to_do"


def signed(body, *, secret=SECRET, at=None):
    at = int((at or datetime.now(UTC)).timestamp())
    signature = stripe.WebhookSignature._compute_signature(f"{at}.{body}", secret)
    return f"t={at},v1={signature}"


def test_a_signature_of_the_official_library_is_accepted():
    body = json.dumps({"id": "evt_1"})
    check_signature(signed(body), body.encode(), secret=SECRET, now=datetime.now(UTC))
    stripe.WebhookSignature.verify_header(body, signed(body), SECRET, tolerance=300)


def in_s(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "header",
    [
        lambda: None,
        lambda: "",
        lambda: "t=1,v1=00",
        lambda: "v1=00",
        lambda: f"t={int(datetime.now(UTC).timestamp())}",
        lambda: signed("{}", secret="other"),
        lambda: signed("[]"),
        lambda: signed("{}", at=in_s(-301)),
        lambda: signed("{}", at=in_s(310)),
        lambda: "t=" + "9" * 5000 + ",v1=00",
    ],
)
def test_every_other_signature_is_refused(header):
    with pytest.raises(Unauthenticated):
        check_signature(header(), b"{}", secret=SECRET, now=datetime.now(UTC))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"id": "evt", "type": "charge.refunded"},
        {"id": 3, "type": "x", "data": {"object": {}}},
        event("charge.refunded", payment_intent="pi", amount=0, amount_refunded=0),
        event("charge.refunded", payment_intent="pi", amount=5, amount_refunded=6),
        event("charge.refunded", payment_intent="pi", amount="5", amount_refunded=True),
        event("checkout.session.completed", payment_status="paid", metadata={"pack": "starter"}),
    ],
)
def test_what_is_no_event_is_refused(given):
    with pytest.raises(ValidationError):
        parse_event(given)


async def test_stripe_reaches_credits_over_http(start_service):
    service = await start_service(STRIPE_WEBHOOK_SECRET=SECRET)
    contact = await make_local_contact(service.db)
    body = json.dumps(checkout(f"email:{contact.email}", number=77))

    async def send(signature, content=body):
        return await service.http.post(
            "/api/webhooks/stripe", content=content, headers={"stripe-signature": signature}
        )

    assert (await send(signed(body, secret="other"))).status_code == 401
    assert (await send("")).status_code == 401
    first = await send(signed(body))
    assert (first.status_code, first.json()["data"]["credits"]) == (200, 500)
    assert (await send(signed(body))).json()["data"] == {"outcome": "nothing_to_do"}
    assert await balance(service.db, contact.id) == 500
    early = json.dumps(refund(1, number=78))
    assert (await send(signed(early), early)).status_code == 404
    for odd in ("[]", "{", '"x"', "[" * 5000):
        assert (await send(signed(odd), odd)).status_code == 400
    huge = "x" * 1_000_000
    assert (await send(signed(huge), huge)).status_code == 413


async def test_without_its_secret_the_address_is_not_there(service):
    assert (await service.http.post("/api/webhooks/stripe", content=b"{}")).status_code == 404
