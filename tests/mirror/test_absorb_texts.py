"""Texts and dates are merged field by field, and people are told from records."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from support.factories import (
    FIELDS,
    balances,
    book,
    make_contact,
    make_local_contact,
    make_mock_exam,
    remote_contact,
)
from tallybook.domain.mirror import Outcome
from tallybook.hubspot.histories import ContactHistory, TextEntry
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.grant_credits import find_contact

START = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)


def at(second):
    return START + timedelta(seconds=second)


async def fetch(owner, query, *params):
    return await (await owner.execute(query, params)).fetchall()


async def absorb(db, contact, second, **changes):
    """What became of an answer that shows the contact as it is stored, but for the changes."""
    known = {
        "hubspot_id": contact.hubspot_id,
        "student_id": contact.student_id,
        "email": contact.email,
        "updated_at": at(second),
    }
    return await absorb_contacts(db, [remote_contact(**known | changes)], first_reason="crm_link")


async def shown(owner, contact):
    """(email, student_id, firstname, ndecc_exam_on, session_epoch) as stored."""
    ((*found,),) = await fetch(
        owner,
        "select email, student_id, firstname, ndecc_exam_on, session_epoch"
        " from tallybook.contacts where id = %s",
        contact.id,
    )
    return found


async def conflicts(owner, contact):
    return await fetch(
        owner,
        "select field, kind, ours, theirs from tallybook.sync_conflicts"
        " where object_id = %s and resolved_at is null order by field, kind",
        contact.id,
    )


async def dirty(owner, contact):
    (((found,),)) = await fetch(owner, "select tallybook.dirty_texts(%s)", contact.id)
    return found


async def waiting(owner):
    """The HubSpot ids that have to be read again."""
    rows = await fetch(owner, "select hubspot_id from tallybook.inbox where object_type = 'contact'")
    return {hubspot_id for (hubspot_id,) in rows}


async def set_date(owner, contact, on, *, sent=()):
    """The student sets the exam date; values sent since may be on their way to HubSpot."""
    await owner.execute(
        "select tallybook.set_ndecc_date(%s, null, null, null, %s, 'student:x', 'UTC')", (contact.id, on)
    )
    await owner.execute(
        "update tallybook.contacts set crm_sent = %s where id = %s",
        (json.dumps({"ndecc_exam_date": list(sent)}), contact.id),
    )


@pytest.fixture
async def ada(db):
    return await make_contact(db, credits={"sj_credits": 1})


async def test_what_only_staff_changed_is_taken(db, owner, ada):
    """A new name, a new student ID: both sides agree, and nothing is left to tell HubSpot."""
    await absorb(db, ada, 1, firstname="Augusta", student_id="NEW1")
    assert (await shown(owner, ada))[1:3] == ["NEW1", "Augusta"]
    assert await dirty(owner, ada) == {}
    assert await conflicts(owner, ada) == []


async def test_what_only_the_student_changed_is_left_to_be_told(db, owner, ada):
    """An answer that shows the old date is no edit."""
    await set_date(owner, ada, date(2030, 5, 1))
    await absorb(db, ada, 1, firstname="Augusta")
    assert (await shown(owner, ada))[3] == date(2030, 5, 1)
    assert await dirty(owner, ada) == {"ndecc_exam_date": "2030-05-01"}


async def test_a_value_we_sent_is_no_edit(db, owner, ada):
    """The date changed twice while the first was on its way: HubSpot showing the first is our own echo."""
    await set_date(owner, ada, date(2030, 6, 2), sent=("2030-05-01",))
    await absorb(db, ada, 1, ndecc_exam_on=date(2030, 5, 1))
    assert (await shown(owner, ada))[3] == date(2030, 6, 2)
    assert await dirty(owner, ada) == {"ndecc_exam_date": "2030-06-02"}
    assert await conflicts(owner, ada) == []


async def test_a_write_of_ours_that_lands_late_is_told_by_its_history(db, owner, ada):
    """Nobody remembers having sent it; its time and source are those of a stamp."""
    await set_date(owner, ada, date(2030, 6, 2))
    history = ContactHistory(late=False, balances={}, texts={"ndecc_exam_date": TextEntry(at(1), own=True)})
    await absorb(db, ada, 1, ndecc_exam_on=date(2030, 5, 1), history=history)
    assert (await shown(owner, ada))[3] == date(2030, 6, 2)
    assert await conflicts(owner, ada) == []


@pytest.mark.parametrize(("second", "stands"), [(1, date(2030, 9, 9)), (-9000, date(2030, 5, 1))])
async def test_of_two_exam_dates_the_newest_stands_and_the_other_is_kept(db, owner, second, stands):
    """Student and staff set it at once: the later one wins, the conflict holds the loser."""
    ada = await make_contact(db, credits={"sj_credits": 1})
    await owner.execute(
        "update tallybook.contacts set crm_modified_at = '-infinity' where id = %s", (ada.id,)
    )
    await set_date(owner, ada, date(2030, 5, 1))
    await absorb(db, ada, second, ndecc_exam_on=date(2030, 9, 9))
    assert (await shown(owner, ada))[3] == stands
    assert await conflicts(owner, ada) == [("ndecc_exam_date", "both_changed", "2030-05-01", "2030-09-09")]
    assert await dirty(owner, ada) == ({} if second > 0 else {"ndecc_exam_date": "2030-05-01"})


async def test_of_two_names_staffs_stands(db, owner, ada):
    """Names are staff's; ours is kept for a person to see."""
    await owner.execute("update tallybook.contacts set firstname = 'Ada K.' where id = %s", (ada.id,))
    await absorb(db, ada, 1, firstname="Augusta")
    assert (await shown(owner, ada))[2] == "Augusta"
    assert await conflicts(owner, ada) == [("firstname", "both_changed", "Ada K.", "Augusta")]


async def test_an_address_or_date_nobody_can_read_is_left_alone_until_it_is_one_again(db, owner, ada):
    """`no-at` does not empty the address, nor is it overwritten."""
    odd = {"email": None, "unreadable_texts": {"email": "no-at", "ndecc_exam_date": "soon"}}
    await absorb(db, ada, 1, **odd)
    assert (await shown(owner, ada))[0] == ada.email
    assert await dirty(owner, ada) == {}
    assert await conflicts(owner, ada) == [
        ("email", "unreadable", ada.email, "no-at"),
        ("ndecc_exam_date", "unreadable", None, "soon"),
    ]
    await absorb(db, ada, 2)
    assert await conflicts(owner, ada) == []


async def test_a_changed_student_id_or_address_ends_all_sessions(db, owner, ada):
    """An old student ID still opens the door, an old address does not: it may be somebody else's."""
    await absorb(db, ada, 1, student_id="NEW1", email="new@example.com")
    assert (await shown(owner, ada))[4] == 2
    login = "select contact_id, refusal from tallybook.identify(null, null, %s, %s)"
    assert await fetch(owner, login, ada.student_id, "new@example.com") == [(ada.id, None)]
    assert await fetch(owner, login, "NEW1", "new@example.com") == [(ada.id, None)]
    assert await fetch(owner, login, "NEW1", ada.email) == [(None, "CONTACT_UNKNOWN")]


async def test_two_contacts_may_have_one_student_id(db, owner, ada):
    """The pair decides who signs in; neither loses anything."""
    bob = await make_contact(db, credits={"sj_credits": 2}, student_id=ada.student_id)
    login = "select contact_id from tallybook.identify(null, null, %s, %s)"
    assert await fetch(owner, login, ada.student_id, ada.email) == [(ada.id,)]
    assert await fetch(owner, login, bob.student_id, bob.email) == [(bob.id,)]


async def test_a_person_made_here_is_linked_by_address(db, owner):
    """HubSpot's number is added to ours; what differs is staff's to decide, and nothing gets lost."""
    eve = await make_local_contact(db, credits={"sj_credits": 2})
    await owner.execute("update tallybook.contacts set firstname = 'Evi' where id = %s", (eve.id,))
    absorbed = await absorb(db, eve, 1, hubspot_id="555", student_id="EVE1", credits={"sj_credits": 3})
    assert absorbed["555"].contact_id == eve.id
    assert (await balances(db, eve))["sj_credits"] == 5
    assert (await shown(owner, eve))[1:3] == ["EVE1", "Ada"]
    assert await conflicts(owner, eve) == [("firstname", "both_changed", "Evi", "Ada")]


async def test_a_create_of_ours_with_unknown_outcome_is_linked_by_its_id(db, owner):
    """The record names our contact, whatever its address has become there."""
    eve = await make_local_contact(db)
    absorbed = await absorb(
        db, eve, 1, hubspot_id="556", student_id="EVE1", email="other@example.com", tallybook_id=str(eve.id)
    )
    assert absorbed["556"].contact_id == eve.id


async def test_an_address_is_not_taken_from_a_person_made_here(db, owner, ada):
    """HubSpot shows it on another contact of ours: both keep what they have, and a person is told."""
    eve = await make_local_contact(db, credits={"sj_credits": 2})
    await absorb(db, ada, 1, email=eve.email, credits={"sj_credits": 4})
    assert [(await shown(owner, each))[0] for each in (ada, eve)] == [ada.email, eve.email]
    assert (await balances(db, ada))["sj_credits"] == 4
    assert await conflicts(owner, ada) == [("email", "both_changed", ada.email, eve.email)]
    assert await dirty(owner, ada) == {}


async def test_an_unknown_record_takes_no_address_before_its_holder_was_read_again(db, owner, ada):
    """It may be the holder, merged into a new record: adding its numbers would double them."""
    absorbed = await absorb(db, ada, 1, hubspot_id="900", credits={"sj_credits": 1})
    assert absorbed["900"].outcome is Outcome.NOT_STORED
    assert await waiting(owner) == {"900", ada.hubspot_id}
    # The holder turns out to have another address now.
    await absorb(db, ada, 2, email="moved@example.com")
    absorbed = await absorb(db, ada, 3, hubspot_id="900", credits={"sj_credits": 1})
    assert absorbed["900"].outcome is Outcome.ABSORBED
    assert (await shown(owner, ada))[0] == "moved@example.com"


async def test_an_old_id_of_a_merged_contact_makes_no_new_one(db, owner, ada):
    """An answer read before the merge arrives after it."""
    await owner.execute(
        "insert into tallybook.contact_aliases (kind, value, contact_id) values ('hubspot_id', '77', %s)",
        (ada.id,),
    )
    absorbed = await absorb(db, ada, 1, hubspot_id="77", email="x@example.com", credits={"sj_credits": 9})
    assert (absorbed["77"].contact_id, absorbed["77"].outcome) == (ada.id, Outcome.OLDER)
    assert (await balances(db, ada))["sj_credits"] == 1


async def test_an_archived_contact_cannot_sign_in_until_it_is_restored(db, owner, ada):
    """Bookings and credits stay as they are."""
    booking = await book(db, ada, await make_mock_exam(db))
    await absorb(db, ada, 1, archived=True, credits={"sj_credits": 1})
    login = "select refusal from tallybook.identify(null, null, %s, %s)"
    assert await fetch(owner, login, ada.student_id, ada.email) == [("STUDENT_NOT_FOUND",)]
    assert await fetch(owner, "select status from tallybook.bookings where id = %s", booking["id"]) == [
        ("Active",)
    ]
    await absorb(db, ada, 2, credits={"sj_credits": 1})
    assert await fetch(owner, login, ada.student_id, ada.email) == [(None,)]


async def test_people_without_a_student_id_are_stored_only_when_asked_for(db, owner):
    """A portal is full of people who book nothing."""
    for students_only, known in ((True, False), (False, True)):
        lead = remote_contact(hubspot_id="600", student_id=None, email="lead@example.com", credits={})
        absorbed = await absorb_contacts(db, [lead], first_reason="crm_link", students_only=students_only)
        assert (absorbed["600"].contact_id is not None) is known
    assert await find_contact(db, "600")


def test_the_fields_of_a_test_contact_are_all_mirrored_texts():
    """Else a test that leaves one out proves nothing."""
    from tallybook.hubspot.fields import TEXT_PROPERTIES

    assert set(FIELDS) == set(TEXT_PROPERTIES)
