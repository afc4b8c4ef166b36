"""Reading one contact again: by whatever name, merging, whether it is stored or not."""

from functools import partial

import pytest

from support.factories import balances, grant
from support.push_world import CONTACT
from tallybook.domain.errors import AmbiguousContact, ContactNotFound, SetupError
from tallybook.usecases.guard_mirror import PortalGuard, demand_same_portal_to_read
from tallybook.usecases.refresh_contact import refresh_contact


def guard(world):
    """As a process that has just started: it has not looked yet."""
    return PortalGuard(partial(demand_same_portal_to_read, world.mirror))


async def test_what_was_spent_here_and_typed_there_both_count(world):
    """Three there, two granted here, five typed there: both changes survive."""
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    await world.edit(CONTACT, contact.hubspot_id, sj_credits="8")
    for _ in range(2):
        assert (
            await refresh_contact(world.mirror, guard(world), contact=f"student:{contact.student_id}")
            == contact.id
        )
        assert (await balances(world.db, contact))["sj_credits"] == 10


@pytest.mark.parametrize("name", ["student:R100", "student:r100", "email:r100@example.com", "{id}"])
async def test_somebody_who_is_not_stored_yet_is_found(world, name):
    """By student ID, e-mail or HubSpot id; the balance is HubSpot's."""
    made = {"email": "r100@example.com", "student_id": "R100", "sj_credits": "4"}
    hubspot_id = await world.create("contacts", **made)
    contact_id = await refresh_contact(world.mirror, guard(world), contact=name.format(id=hubspot_id))
    assert await world.rows(
        "select b.balance from tallybook.credit_balances b where b.contact_id = %s and b.credit_type = %s",
        contact_id,
        "sj_credits",
    ) == [(4,)]


async def test_nobody_and_several_of_one_student_id_are_told_apart(world):
    """Neither is guessed at."""
    with pytest.raises(ContactNotFound):
        await refresh_contact(world.mirror, guard(world), contact="student:R200")
    for n in range(2):
        await world.create("contacts", email=f"r200-{n}@example.com", student_id="R200")
    with pytest.raises(AmbiguousContact):
        await refresh_contact(world.mirror, guard(world), contact="student:R200")


@pytest.mark.parametrize("known", [True, False])
async def test_nothing_is_merged_from_a_portal_that_is_not_this_database_s(world, known):
    """The token was swapped: staff hear of both portals, and numbers of strangers stay where they are."""
    contact = await world.student(credits={"sj_credits": 3})
    await guard(world).demand()
    before = await balances(world.db, contact)
    stranger = await world.create("contacts", email="r300@example.com", sj_credits="9", student_id="R300")
    await world.edit(CONTACT, contact.hubspot_id, sj_credits="8")
    await world.portal.post("settings", portal_id=4711)
    name = contact.hubspot_id if known else stranger
    with pytest.raises(SetupError, match="the token opens portal 4711"):
        await refresh_contact(world.mirror, guard(world), contact=name)
    assert await balances(world.db, contact) == before
    assert await world.rows("select from tallybook.contacts where hubspot_id = %s", stranger) == []
