"""What staff decide where a contact could not be merged: both sides follow, the ledger says who decided."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from support.factories import MIRRORED, balances, grant, make_contact, make_local_contact, remote_contact
from tallybook.domain.errors import BalanceTooLow, ConfirmationStale, ValidationError
from tallybook.hubspot.histories import ContactHistory, NumberEntry
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.grant_credits import find_contact
from tallybook.usecases.resolve_conflict import Choice, resolve_conflict

START = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)


def _entry(at, number):
    return NumberEntry(at=at, number=number, empty=False, own_rank=None, actor="hubspot:7")


class Case:
    """A contact with 5 sj_credits that HubSpot shows, and the conflict it gets into."""

    def __init__(self, db, owner, contact):
        self.db, self.owner, self.contact, self.second = db, owner, contact, 0

    async def shows(self, *, history=None, stamp=None, **changes):
        """HubSpot's next answer."""
        self.second += 1
        known = {
            "hubspot_id": self.contact.hubspot_id,
            "student_id": self.contact.student_id,
            "email": self.contact.email,
            "updated_at": START + timedelta(seconds=self.second),
        }
        answer = replace(remote_contact(**known | changes), history=history, stamp=stamp)
        await absorb_contacts(self.db, [answer], first_reason="crm_link")

    async def entered(self, kind):
        """Into a conflict of this kind about sj_credits, HubSpot showing 9 where it is a number."""
        if kind == "unreadable":
            others = dict.fromkeys(set(MIRRORED) - {"sj_credits"}, 0)
            await self.shows(balances=others, unreadable={"sj_credits": "lots"}, history=self.told(5, None))
        elif kind == "gap":
            await self.owner.execute("update tallybook.contacts set write_no = 1")
            await self.shows(credits={"sj_credits": 9}, stamp="1 sj_credits=5", history=self.told(7, 9))
        else:
            await grant(self.db, self.contact, "sj_credits", -5)
            await self.shows(credits={"sj_credits": 3})

    def told(self, *numbers):
        """A history of sj_credits; a 5 at its beginning is the one met first."""
        met = START - timedelta(days=1)
        now = START + timedelta(seconds=self.second + 0.5)
        entries = tuple(
            _entry(met if n == 0 and number == 5 else now + timedelta(milliseconds=n), number)
            for n, number in enumerate(numbers)
        )
        shown = dict.fromkeys(MIRRORED, (_entry(met, 0),)) | {"sj_credits": entries}
        return ContactHistory(late=False, balances=shown, texts={})

    async def fetch(self, query, *params):
        return await (await self.owner.execute(query, params or None)).fetchall()

    async def open(self):
        return await self.fetch(
            "select kind, field from tallybook.sync_conflicts where resolved_at is null order by kind"
        )

    async def resolve(self, choice, value=None):
        (((conflict_id,),)) = await self.fetch(
            "select id from tallybook.sync_conflicts order by id desc limit 1"
        )
        return await resolve_conflict(
            self.db,
            conflict_id=conflict_id,
            choice=choice,
            value=value,
            reason="they called",
            actor="cli:test",
        )

    async def dirty(self):
        (((numbers, texts),)) = await self.fetch(
            "select tallybook.dirty_balances(%s), tallybook.dirty_texts(%s)", self.contact.id, self.contact.id
        )
        return numbers | texts


@pytest.fixture
async def case(db, owner):
    contact = await make_contact(db, credits={"sj_credits": 5})
    return Case(db, owner, contact)


@pytest.mark.parametrize(
    ("kind", "choice", "value", "expected"),
    [
        ("unreadable", Choice.OURS, None, (5, {"sj_credits": 5})),
        ("unreadable", Choice.VALUE, "7", (7, {"sj_credits": 7})),
        ("gap", Choice.OURS, None, (5, {"sj_credits": 5})),
        ("gap", Choice.THEIRS, None, (9, {})),
        ("gap", Choice.VALUE, "6", (6, {"sj_credits": 6})),
        ("below_zero", Choice.OURS, None, (0, {"sj_credits": 0})),
        ("below_zero", Choice.THEIRS, None, (3, {})),
        ("below_zero", Choice.VALUE, "4", (4, {"sj_credits": 4})),
        ("below_zero", Choice.DISMISS, None, (0, {"sj_credits": 0})),
    ],
)
async def test_a_number_is_what_a_person_decides(case, kind, choice, value, expected):
    """Ours, theirs or a third one; HubSpot is told unless it shows that already."""
    balance, told = expected
    await case.entered(kind)
    assert await case.open() == [(kind, "sj_credits")]
    await case.resolve(choice, value)
    assert (await balances(case.db, case.contact))["sj_credits"] == balance
    assert await case.open() == []
    assert await case.dirty() == told
    resolved = await case.fetch(
        "select delta, actor from tallybook.credit_entries where reason = 'conflict_resolved'"
    )
    before = {"unreadable": 5, "gap": 5, "below_zero": 0}[kind]
    assert resolved == ([(balance - before, "cli:test")] if balance != before else [])


async def test_a_frozen_number_goes_on_from_what_hubspot_shows_when_it_thaws(case):
    """9 while frozen, 11 later, ours kept: one more there is one more here."""
    await case.entered("gap")
    await case.shows(credits={"sj_credits": 11}, stamp="1 sj_credits=5")
    await case.resolve(Choice.OURS)
    await case.shows(credits={"sj_credits": 12}, stamp="1 sj_credits=5")
    assert (await balances(case.db, case.contact))["sj_credits"] == 6


@pytest.mark.parametrize("value", ["-1", "12abc", "3.5", "10000", str(2**40), ""])
async def test_a_third_number_has_to_be_one(case, value):
    """What HubSpot may not show, staff may not decide."""
    await case.entered("gap")
    with pytest.raises(ValidationError):
        await case.resolve(Choice.VALUE, value)
    assert (await balances(case.db, case.contact))["sj_credits"] == 5
    assert await case.open() == [("gap", "sj_credits")]


async def test_what_is_set_aside_cannot_be_decided_away(case):
    """2 of 5 are held; 1 is too low."""
    await case.fetch(
        "insert into tallybook.credit_holds (contact_id, credit_type, credits, actor, expires_at)"
        " values (%s, 'sj_credits', 2, 'key:test', clock_timestamp() + interval '1 hour') returning 1",
        case.contact.id,
    )
    await case.owner.execute("update tallybook.credit_balances set held = 2 where credit_type = 'sj_credits'")
    await case.entered("gap")
    with pytest.raises(BalanceTooLow):
        await case.resolve(Choice.VALUE, "1")


async def test_a_text_is_not_theirs_to_take_as_a_number(case):
    """`lots` cannot be the balance."""
    await case.entered("unreadable")
    with pytest.raises(ValidationError):
        await case.resolve(Choice.THEIRS)


async def test_an_unknown_balance_can_be_decided(db, owner):
    """Met as `many`: nobody knew it, so nothing was said; staff say 4, and HubSpot is told."""
    contact = await make_contact(db, credits=None)
    case = Case(db, owner, contact)
    await case.shows(balances={}, unreadable={"sj_credits": "many"})
    assert await balances(db, contact) == {}
    await case.resolve(Choice.VALUE, "4")
    assert await balances(db, contact) == {"sj_credits": 4}
    assert await case.dirty() == {"sj_credits": 4}


@pytest.mark.parametrize(
    ("choice", "value", "name", "told"),
    [
        (Choice.THEIRS, None, "Augusta", {}),
        (Choice.OURS, None, "Ada K.", {"firstname": "Ada K."}),
        (Choice.VALUE, "Countess", "Countess", {"firstname": "Countess"}),
        (Choice.DISMISS, None, "Augusta", {}),
    ],
)
async def test_a_name_is_what_a_person_decides(case, choice, value, name, told):
    """Both sides had changed it, and staff's stood."""
    await case.owner.execute("update tallybook.contacts set firstname = 'Ada K.'")
    await case.shows(firstname="Augusta", credits={"sj_credits": 5})
    await case.resolve(choice, value)
    assert await case.fetch("select firstname from tallybook.contacts") == [(name,)]
    assert await case.dirty() == told


async def test_an_address_that_is_a_persons_of_ours_is_theirs_once_both_are_one(case):
    """HubSpot gave it to a contact we know; deciding so merges the person made here into that contact."""
    eve = await make_local_contact(case.db, credits={"cs_credits": 2})
    await case.shows(email=eve.email, credits={"sj_credits": 5})
    await case.resolve(Choice.THEIRS)
    assert await find_contact(case.db, str(eve.id)) == case.contact.id
    assert await find_contact(case.db, f"email:{eve.email}") == case.contact.id
    assert (await balances(case.db, case.contact))["cs_credits"] == 2
    assert await case.open() == [("merged", str(eve.id))]


async def test_an_unreadable_address_is_set_by_a_person(case):
    """`no-at` cannot be taken; what staff give goes to both sides, once it is an address nobody has."""
    other = await make_contact(case.db, credits={})
    await case.shows(email=None, unreadable_texts={"email": "no-at"}, credits={"sj_credits": 5})
    for wrong in ("no-at", other.email):
        with pytest.raises(ValidationError):
            await case.resolve(Choice.VALUE, wrong)
    await case.resolve(Choice.VALUE, "Right@Example.com")
    assert await case.dirty() == {"email": "right@example.com"}


async def test_two_people_decide_once(case):
    """The second is told what the first decided; the same decision again is nothing new."""
    await case.entered("gap")
    await case.resolve(Choice.VALUE, "6")
    assert (await case.resolve(Choice.VALUE, "6")).outcome == "already"
    with pytest.raises(ConfirmationStale):
        await case.resolve(Choice.THEIRS)
    assert (await balances(case.db, case.contact))["sj_credits"] == 6
