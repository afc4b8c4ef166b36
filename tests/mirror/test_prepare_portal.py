"""What the mirror needs of a portal, and who puts it there."""

import asyncio

import pytest

from support.factories import CATALOG
from tallybook.domain.errors import CrmUnavailable, SetupError
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.expected_properties import expected_properties, misfits
from tallybook.hubspot.records import Property, PropertyOption, PropertyRights
from tallybook.usecases.prepare_portal import plan_portal, prepare_portal

CALL = {"kind": CallKind.RECONCILE, "deadline_s": 5}
OURS = {
    ("contact", "tallybook_id", True),
    ("contact", "tallybook_sync", False),
    ("mock_exam", "tallybook_id", True),
    ("booking", "tallybook_id", True),
}


def ours(plan):
    return {(each.of.value, each.wanted.name, each.wanted.is_unique) for each in plan.to_create}


async def properties(client, of):
    known = await client.list_properties(client.connection.object_type(of), **CALL)
    return {each.name: each for each in known}


async def test_a_plan_names_what_is_missing_and_changes_nothing(portal, client):
    """Four properties of our own; the simulated portal has all the others in the right form."""
    for _ in range(2):
        plan = await plan_portal(client, CATALOG)
        assert ours(plan) == OURS
        assert plan.problems == ()
    assert "tallybook_id" not in await properties(client, MirroredType.CONTACT)


async def test_preparing_a_portal_creates_them_once(portal, client):
    """Of the right type, unique where records are found by them, beside the properties people know."""
    assert ours(await prepare_portal(client, CATALOG)) == OURS
    for of, name, is_unique in OURS:
        found = (await properties(client, MirroredType(of)))[name]
        assert (found.type, found.field_type, found.has_unique_value) == ("string", "text", is_unique)
        beside = "student_id" if of == "contact" else "is_active"
        assert found.group_name == (await properties(client, MirroredType(of)))[beside].group_name
    before = (await portal.stats())["total"]
    again = await prepare_portal(client, CATALOG)
    assert (again.to_create, again.problems) == ((), ())
    assert (await portal.stats())["total"] - before == len(MirroredType)


async def test_two_who_prepare_at_once_both_succeed(portal):
    """Whoever is second finds the property there, which is what it wanted."""
    async with portal.client() as one, portal.client() as other:
        await asyncio.gather(*(prepare_portal(each, CATALOG) for each in (one, other)))
        assert (await plan_portal(one, CATALOG)).to_create == ()


async def test_a_lost_answer_is_no_failure(portal, client):
    """HubSpot created the property and answered 502: asked again it says 409, and that is fine."""
    await portal.post("faults", path="properties", method="POST", status=502, times=1, apply_first=True)
    await prepare_portal(client, CATALOG)
    assert (await plan_portal(client, CATALOG)).to_create == ()


@pytest.mark.parametrize(("status", "error"), [(403, SetupError), (400, CrmUnavailable)])
async def test_a_refusal_is_told(portal, client, status, error):
    """A missing scope or a portal with too many unique properties is not passed over."""
    await portal.post("faults", path="properties", method="POST", status=status, times=1)
    with pytest.raises(error):
        await prepare_portal(client, CATALOG)


EXPECTED = {(of, each.name): each for of, wanted in expected_properties(CATALOG).items() for each in wanted}
BOOKING, CONTACT, MOCK_EXAM = MirroredType.BOOKING, MirroredType.CONTACT, MirroredType.MOCK_EXAM


@pytest.mark.parametrize(
    ("of", "found", "words"),
    [
        (CONTACT, Property("sj_credits", "number"), None),
        (CONTACT, Property("sj_credits", "enumeration"), "is of the type enumeration"),
        (CONTACT, Property("sj_credits", "number", calculated=True), "read-only or calculated"),
        (
            CONTACT,
            Property("sj_credits", "number", modification_metadata=PropertyRights(read_only_value=True)),
            "read-only or calculated",
        ),
        (CONTACT, Property("tallybook_id", "string"), "is not unique"),
        (CONTACT, Property("tallybook_id", "string", has_unique_value=True), None),
        (CONTACT, Property("tallybook_sync", "string"), None),
        (MOCK_EXAM, Property("total_bookings", "string"), "is of the type string"),
        (MOCK_EXAM, Property("exam_date", "date"), None),
        (BOOKING, Property("is_active", "string"), None),
        (
            BOOKING,
            Property("is_active", "enumeration", options=(PropertyOption("Active"),)),
            "has no option for: Completed, Cancelled",
        ),
    ],
)
def test_a_property_in_the_wrong_form_is_named(of, found, words):
    """Type, uniqueness, read-only and the options of a list; what fits says nothing."""
    said = [what for what, _ in misfits(EXPECTED[of, found.name], found)]
    assert said == [] if words is None else (len(said) == 1 and words in said[0])


async def test_every_property_the_mirror_sends_is_looked_at(db):
    """Whatever name SQL gives a value of ours, doctor has checked that property."""
    async with db.connection() as connection:
        for of, wanted in expected_properties(CATALOG).items():
            table = {CONTACT: "contacts", MOCK_EXAM: "mock_exams", BOOKING: "bookings"}[of]
            cursor = await connection.execute(
                f"select jsonb_object_keys(tallybook.{of.value}_mirror(null::tallybook.{table}))"
            )
            sent = {name for (name,) in await cursor.fetchall()}
            assert sent
            assert sent <= {each.name for each in wanted if each.is_written}
