"""Numbers typed in HubSpot are merged with ours: both survive, none is booked twice, none is guessed."""

from datetime import UTC, datetime, timedelta

import pytest

from support.factories import (
    MIRRORED,
    balances,
    grant,
    make_contact,
    make_local_contact,
    remote_contact,
)
from tallybook.domain.mirror import Outcome
from tallybook.hubspot.histories import ONE_REQUEST, SAME_TIME, ContactHistory, NumberEntry
from tallybook.usecases.absorb_contacts import absorb_contacts

# Later than anything the factories do.
START = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)


def at(second):
    """So many seconds after everything began."""
    return START + timedelta(seconds=second)


async def absorb(db, contact, second, *, stamp=None, history=None, **changes):
    """What became of an answer of HubSpot's about the contact; balances as the answer shows them."""
    remote = remote_contact(
        hubspot_id=contact.hubspot_id,
        student_id=contact.student_id,
        email=contact.email,
        updated_at=at(second),
        stamp=stamp,
        history=history,
        **changes,
    )
    absorbed = await absorb_contacts(db, [remote], first_reason="crm_link")
    return absorbed[contact.hubspot_id].outcome


def history(*entries, late=False, stamps=(), own_within=SAME_TIME, **others):
    """The history of sj_credits (and others: 0 from the start), oldest first.

    Entries are (second, number, own); where times may differ `own` is the rank of the stamp, or 0.
    """

    def parsed(rows):
        return tuple(
            NumberEntry(
                at=at(second), number=number, empty=False, own_rank=int(own) or None, actor="hubspot:77"
            )
            for second, number, own in rows
        )

    shown = dict.fromkeys(MIRRORED, ((-9, 0, False),)) | {"sj_credits": entries, **others}
    return ContactHistory(
        late=late,
        stamps=stamps,
        balances={name: parsed(shown[name]) for name in MIRRORED},
        texts={},
        own_within=own_within,
    )


async def pushed(owner, contact, write_no):
    """As if so many writes had been sent for this contact."""
    await owner.execute("update tallybook.contacts set write_no = %s where id = %s", (write_no, contact.id))


async def one(owner, query, *params):
    return await (await owner.execute(query, params)).fetchone()


async def conflicts(owner, contact):
    """The open conflicts of the contact: (field, kind, ours, theirs)."""
    cursor = await owner.execute(
        "select field, kind, ours, theirs from tallybook.sync_conflicts"
        " where object_id = %s and resolved_at is null order by field, kind",
        (contact.id,),
    )
    return await cursor.fetchall()


async def dirty(owner, contact):
    return (await one(owner, "select tallybook.dirty_balances(%s)", contact.id))[0]


@pytest.fixture
async def ada(db):
    """A student with 5 sj_credits, met at second 0."""
    contact = await make_contact(db, credits=None)
    assert await absorb(db, contact, 0, credits={"sj_credits": 5}) is Outcome.ABSORBED
    return contact


async def test_both_sides_change_and_both_changes_count(db, owner, ada):
    """5, +2 here, 9 typed there: 11, which HubSpot has to be told."""
    await grant(db, ada, "sj_credits", 2)
    assert await absorb(db, ada, 1, credits={"sj_credits": 9}) is Outcome.ABSORBED
    assert (await balances(db, ada))["sj_credits"] == 11
    assert await dirty(owner, ada) == {"sj_credits": 11}


async def test_an_answer_is_counted_once_and_an_older_one_never(db, ada):
    """The same answer again changes nothing; one that was overtaken is told so."""
    for expected in (Outcome.ABSORBED, Outcome.ABSORBED):
        assert await absorb(db, ada, 2, credits={"sj_credits": 7}) is expected
    assert await absorb(db, ada, 1, credits={"sj_credits": 1}) is Outcome.OLDER
    assert (await balances(db, ada))["sj_credits"] == 7


async def test_an_answer_that_shows_nothing_new_writes_nothing(db, owner, ada):
    """A reconcile that finds nothing to do leaves every row as it is."""
    query = "select xmin, ctid from tallybook.contacts where id = %s"
    before = await one(owner, query, ada.id)
    assert await absorb(db, ada, 0, credits={"sj_credits": 5}) is Outcome.ABSORBED
    assert await one(owner, query, ada.id) == before


async def test_two_edits_of_one_millisecond_end_at_the_last_one_read(db, ada):
    """Equal times are no proof of equal values: the difference is taken, each time it is read."""
    for number in (6, 8, 6, 8):
        await absorb(db, ada, 1, credits={"sj_credits": number})
    assert (await balances(db, ada))["sj_credits"] == 8


async def test_an_unread_own_write_needs_the_history(db, owner, ada):
    """Another stamp than the one absorbed: without a history nothing is concluded."""
    await grant(db, ada, "sj_credits", 2)
    await pushed(owner, ada, 1)
    stamp = "1 sj_credits=7"
    assert await absorb(db, ada, 3, stamp=stamp, credits={"sj_credits": 6}) is Outcome.NEED_HISTORY
    late = history((0, 5, False), (1, 7, True), late=True)
    assert await absorb(db, ada, 3, stamp=stamp, credits={"sj_credits": 6}, history=late) is Outcome.AGAIN
    assert (await balances(db, ada))["sj_credits"] == 7

    full = history((0, 5, False), (1, 7, True), (3, 6, False))
    assert await absorb(db, ada, 3, stamp=stamp, credits={"sj_credits": 6}, history=full) is Outcome.ABSORBED
    assert (await balances(db, ada))["sj_credits"] == 6
    assert await dirty(owner, ada) == {}
    assert await one(
        owner, "select delta, reason, actor from tallybook.credit_entries order by id desc limit 1"
    ) == (-1, "crm_edit", "hubspot:77")


async def test_an_edit_between_our_read_and_our_write_is_not_lost(db, owner, ada):
    """5 there, 8 typed, then our 7 over it: the 3 more are found in the history and pushed again."""
    await grant(db, ada, "sj_credits", 2)
    await pushed(owner, ada, 1)
    shown = history((0, 5, False), (1, 8, False), (2, 7, True))
    await absorb(db, ada, 2, stamp="1 sj_credits=7", credits={"sj_credits": 7}, history=shown)
    assert (await balances(db, ada))["sj_credits"] == 10
    assert await dirty(owner, ada) == {"sj_credits": 10}


async def test_a_person_who_types_what_we_push_counts_too(db, owner, ada):
    """7 typed just before our 7: their +2 and ours both count, though our write left no entry."""
    await grant(db, ada, "sj_credits", 2)
    await pushed(owner, ada, 1)
    shown = history((0, 5, False), (1, 7, False))
    await absorb(db, ada, 2, stamp="1 sj_credits=7", credits={"sj_credits": 7}, history=shown)
    assert (await balances(db, ada))["sj_credits"] == 9


async def test_a_write_that_lands_late_is_recognised(db, owner, ada):
    """Write 2 was read back, then write 1 arrives: its value is ours, and today's goes out again."""
    await grant(db, ada, "sj_credits", 2)
    await pushed(owner, ada, 2)
    shown = history((0, 5, False), (2, 7, True))
    await absorb(db, ada, 2, stamp="2 sj_credits=7", credits={"sj_credits": 7}, history=shown)
    assert await dirty(owner, ada) == {}
    shown = history((0, 5, False), (2, 7, True), (4, 6, True), stamps=("2 sj_credits=7", "1 sj_credits=6"))
    await absorb(db, ada, 4, stamp="1 sj_credits=6", credits={"sj_credits": 6}, history=shown)
    assert (await balances(db, ada))["sj_credits"] == 7
    assert await dirty(owner, ada) == {"sj_credits": 7}


async def test_increases_are_booked_before_decreases(db, owner, ada):
    """Typed 0 by mistake and 5 right after, while a student spends 3: the floor does not cut it."""
    await grant(db, ada, "sj_credits", -3)
    await pushed(owner, ada, 1)
    shown = history((0, 5, False), (1, 0, False), (2, 5, False), (3, 2, True))
    await absorb(db, ada, 3, stamp="1 sj_credits=2", credits={"sj_credits": 2}, history=shown)
    assert (await balances(db, ada))["sj_credits"] == 2
    assert await conflicts(owner, ada) == []


async def test_more_taken_away_than_there_is_goes_to_a_person(db, owner, ada):
    """3 of 5 are spent here, 1 typed there: 0 and a remainder of 2, not tried again later."""
    await grant(db, ada, "sj_credits", -3)
    await absorb(db, ada, 1, credits={"sj_credits": 1})
    assert (await balances(db, ada))["sj_credits"] == 0
    assert await conflicts(owner, ada) == [("sj_credits", "below_zero", "0", "1")]
    assert await one(owner, "select details ->> 'remainder' from tallybook.sync_conflicts") == ("2",)
    await grant(db, ada, "sj_credits", 4)
    await absorb(db, ada, 2, credits={"sj_credits": 1})
    assert (await balances(db, ada))["sj_credits"] == 4
    # A second shortage adds to the first.
    await absorb(db, ada, 3, credits={"sj_credits": 0})
    await grant(db, ada, "sj_credits", -3)
    await absorb(db, ada, 4, credits={"sj_credits": 5})
    await grant(db, ada, "sj_credits", -5)
    await absorb(db, ada, 5, credits={"sj_credits": 2})
    assert await one(owner, "select details ->> 'remainder' from tallybook.sync_conflicts") == ("5",)


async def test_what_is_set_aside_is_the_floor(db, owner, ada):
    """2 of 5 are held for an upload; 0 is typed: 2 stay."""
    await owner.execute(
        "insert into tallybook.credit_holds (contact_id, credit_type, credits, actor, expires_at)"
        " values (%s, 'sj_credits', 2, 'key:test', clock_timestamp() + interval '1 hour')",
        (ada.id,),
    )
    await owner.execute(
        "update tallybook.credit_balances set held = 2 where contact_id = %s and credit_type = 'sj_credits'",
        (ada.id,),
    )
    await absorb(db, ada, 1, credits={"sj_credits": 0})
    assert (await balances(db, ada))["sj_credits"] == 2
    assert await conflicts(owner, ada) == [("sj_credits", "below_zero", "2", "0")]


async def test_lost_history_freezes_the_field_and_books_nothing(db, owner, ada):
    """HubSpot keeps some entries only: what it forgot cannot be guessed, the other balances go on."""
    await grant(db, ada, "sj_credits", 2)
    await pushed(owner, ada, 1)
    shown = history((4, 9, False), (5, 7, True), cs_credits=((-9, 0, False), (3, 4, False)))
    shows = {"sj_credits": 7, "cs_credits": 4}
    assert await absorb(db, ada, 5, stamp="1 sj_credits=7", credits=shows, history=shown) is Outcome.ABSORBED
    assert await balances(db, ada) | {"sj_credits": 7, "cs_credits": 4} == await balances(db, ada)
    assert await conflicts(owner, ada) == [("sj_credits", "gap", "7", "7")]
    await grant(db, ada, "sj_credits", 1)
    assert await dirty(owner, ada) == {}
    await absorb(db, ada, 6, stamp="1 sj_credits=7", credits={"sj_credits": 12, "cs_credits": 4})
    assert (await balances(db, ada))["sj_credits"] == 8
    assert await conflicts(owner, ada) == [("sj_credits", "gap", "7", "12")]


async def test_forgotten_stamps_leave_changed_numbers_to_a_person(db, owner, ada):
    """Whose the 9 is cannot be told any more; what did not change is not touched by that."""
    await pushed(owner, ada, 2)
    shown = history((0, 5, False), stamps=("1",))
    await absorb(db, ada, 1, stamp="1", credits={"sj_credits": 5}, history=shown)
    shown = history((0, 5, False), (2, 9, False), stamps=("2",))
    await absorb(db, ada, 2, stamp="2", credits={"sj_credits": 9}, history=shown)
    assert (await balances(db, ada))["sj_credits"] == 5
    assert await conflicts(owner, ada) == [("sj_credits", "gap", "5", "9")]


async def test_an_entry_of_the_last_answers_own_millisecond_is_placed_by_the_base(db, owner, ada):
    """Edit, read and our write within one millisecond: what came after the read is still found."""
    await grant(db, ada, "sj_credits", 2)
    await pushed(owner, ada, 1)
    shown = history((-9, 3, False), (0, 5, False), (0, 7, True), (1, 8, False))
    await absorb(db, ada, 1, stamp="1 sj_credits=7", credits={"sj_credits": 8}, history=shown)
    assert (await balances(db, ada))["sj_credits"] == 8
    assert await conflicts(owner, ada) == []


@pytest.mark.parametrize("text", ["12abc", "-3", str(2**40), "3.5"])
async def test_a_text_that_is_no_number_is_kept_for_a_person_and_ours_goes_back(db, owner, ada, text):
    """Never zero, never merged; the next number is compared with the last one that was one."""
    others = dict.fromkeys(set(MIRRORED) - {"sj_credits"}, 0)
    odd = {"balances": others, "unreadable": {"sj_credits": text}}
    # Before it somebody may have typed a number that nobody has seen: 7 here.
    assert await absorb(db, ada, 2, **odd) is Outcome.NEED_HISTORY
    shown = history((0, 5, False), (1, 7, False), (2, None, False))
    assert await absorb(db, ada, 2, **odd, history=shown) is Outcome.ABSORBED
    assert (await balances(db, ada))["sj_credits"] == 7
    assert await conflicts(owner, ada) == [("sj_credits", "unreadable", "7", text)]
    assert await dirty(owner, ada) == {"sj_credits": 7}
    assert (await one(owner, "select count(*) from tallybook.outbox"))[0] == 1
    # Seen once, it needs no history again; nor does the number that follows it.
    assert await absorb(db, ada, 2, **odd) is Outcome.ABSORBED
    await absorb(db, ada, 3, credits={"sj_credits": 6})
    assert (await balances(db, ada))["sj_credits"] == 6
    assert await conflicts(owner, ada) == []
    assert await dirty(owner, ada) == {}


async def test_an_emptied_number_is_not_zero(db, owner, ada):
    """5 deleted there: nobody said 0. An empty one that was 0 is still 0."""
    empty = frozenset({"sj_credits", "cs_credits"})
    shown = history((0, 5, False), (1, None, False))
    assert await absorb(db, ada, 1, credits={}, empty=empty) is Outcome.NEED_HISTORY
    assert await absorb(db, ada, 1, credits={}, empty=empty, history=shown) is Outcome.ABSORBED
    assert (await balances(db, ada))["sj_credits"] == 5
    assert await conflicts(owner, ada) == [("sj_credits", "unreadable", "5", "")]
    assert await dirty(owner, ada) == {"sj_credits": 5}


@pytest.mark.parametrize("nothing", [True, False], ids=["emptied", "text"])
async def test_a_number_typed_before_a_text_that_is_none_counts(db, owner, ada, nothing):
    """5, 8, then no number, all before we looked: the last value hides the 3 more, so the history is read."""
    shown = {"credits": {}, "empty": frozenset({"sj_credits"})} if nothing else {
        "balances": dict.fromkeys(set(MIRRORED) - {"sj_credits"}, 0), "unreadable": {"sj_credits": "lots"}
    }  # fmt: skip
    assert await absorb(db, ada, 2, **shown) is Outcome.NEED_HISTORY
    typed = history((0, 5, False), (1, 8, False), (2, None, False))
    assert await absorb(db, ada, 2, **shown, history=typed) is Outcome.ABSORBED
    assert (await balances(db, ada))["sj_credits"] == 8
    # The same answer again is nothing new.
    assert await absorb(db, ada, 2, **shown) is Outcome.ABSORBED
    assert await dirty(owner, ada) == {"sj_credits": 8}


async def test_more_typed_than_hubspot_keeps_is_the_difference_while_nobody_else_wrote(db, owner, ada):
    """5, then 25 edits up to 30 and a text: of the 20 kept none is the 5, and yet nothing is missing."""
    typed = history(*((6 + n, 11 + n, False) for n in range(20)), (26, None, False))
    others = dict.fromkeys(set(MIRRORED) - {"sj_credits"}, 0)
    shown = {"balances": others, "unreadable": {"sj_credits": "lots"}, "history": typed}
    assert await absorb(db, ada, 26, **shown) is Outcome.ABSORBED
    assert (await balances(db, ada))["sj_credits"] == 30
    assert [each[:2] for each in await conflicts(owner, ada)] == [("sj_credits", "unreadable")]


async def test_control_more_typed_than_hubspot_keeps_beside_a_write_of_ours_is_a_gap(db, owner, ada):
    """Negative control: a write of ours among the entries that are gone makes the difference worthless."""
    await pushed(owner, ada, 1)
    typed = history(*((6 + n, 11 + n, False) for n in range(20)))
    await absorb(db, ada, 26, stamp="1 sj_credits=9", credits={"sj_credits": 30}, history=typed)
    assert (await balances(db, ada))["sj_credits"] == 5
    assert [each[:2] for each in await conflicts(owner, ada)] == [("sj_credits", "gap")]


async def test_a_number_that_no_unread_write_of_ours_named_is_known_however_much_was_typed(db, owner, ada):
    """Our write set cs_credits to 2 before HubSpot went away; sj_credits was typed from 5 to 30 meanwhile."""
    await pushed(owner, ada, 2)
    typed = tuple((6 + n, 11 + n, False) for n in range(20))
    seen = history(*typed, cs_credits=((-9, 0, False), (1, 2, True)), stamps=("1", "2 cs_credits=2"))
    shown = {"sj_credits": 30, "cs_credits": 2}
    await absorb(db, ada, 26, stamp="2 cs_credits=2", credits=shown, history=seen)
    assert (await balances(db, ada))["sj_credits"] == 30
    assert await conflicts(owner, ada) == []


@pytest.mark.parametrize("stamps", [("1 sj_credits=9", "2 cs_credits=2"), tuple(f"{n}" for n in range(20))])
async def test_control_what_an_unread_write_named_or_may_have_named_is_a_gap(db, owner, ada, stamps):
    """Negative control: among the entries that are gone is a write of ours, or more writes than are shown."""
    await pushed(owner, ada, 30)
    typed = history(*((6 + n, 11 + n, False) for n in range(20)), stamps=stamps)
    await absorb(db, ada, 26, stamp=stamps[-1], credits={"sj_credits": 30, "cs_credits": 0}, history=typed)
    assert (await balances(db, ada))["sj_credits"] == 5
    assert [each[:2] for each in await conflicts(owner, ada)] == [("sj_credits", "gap")]


async def test_unreadable_entries_do_not_break_the_chain(db, owner, ada):
    """5, "lots", 8, our 7: the text in between is nobody's number, the 3 more are."""
    await grant(db, ada, "sj_credits", 2)
    await pushed(owner, ada, 1)
    shown = history((0, 5, False), (1, None, False), (2, 8, False), (3, 7, True))
    await absorb(db, ada, 3, stamp="1 sj_credits=7", credits={"sj_credits": 7}, history=shown)
    assert (await balances(db, ada))["sj_credits"] == 10


async def test_a_first_meeting_below_zero_is_zero_and_one_without_a_number_is_unknown(db, owner):
    """-3 becomes 0, which HubSpot is told; "many" is not stored at all, and nothing is not zero."""
    contact = await make_contact(db, credits=None)
    others = dict.fromkeys(set(MIRRORED) - {"sj_credits", "cs_credits"}, 1)
    await absorb(db, contact, 0, balances=others, unreadable={"sj_credits": "-3", "cs_credits": "many"})
    assert await balances(db, contact) == {"sj_credits": 0} | others
    assert await dirty(owner, contact) == {"sj_credits": 0}
    assert await conflicts(owner, contact) == [
        ("cs_credits", "unreadable", None, "many"),
        ("sj_credits", "unreadable", "0", "-3"),
    ]
    await absorb(db, contact, 1, credits={"sj_credits": 2, "cs_credits": 4} | others)
    assert await balances(db, contact) == {"sj_credits": 2, "cs_credits": 4} | others
    assert await conflicts(owner, contact) == []


async def test_a_number_of_ours_beyond_the_largest_is_read_back_as_it_is(db, owner, ada):
    """9,998 and +5 typed at once exceed what one may type; HubSpot then shows our own number."""
    await absorb(db, ada, 1, credits={"sj_credits": 9996})
    await grant(db, ada, "sj_credits", 3)
    await absorb(db, ada, 2, credits={"sj_credits": 9999})
    assert (await balances(db, ada))["sj_credits"] == 10_002
    await pushed(owner, ada, 1)
    shown = history((0, 5, False), (1, 9996, False), (2, 9999, False), (3, 10_002, True))
    others = dict.fromkeys(set(MIRRORED) - {"sj_credits"}, 0)
    await absorb(
        db, ada, 3, stamp="1 sj_credits=10002", balances=others, unreadable={"sj_credits": "10002"},
        history=shown,
    )  # fmt: skip
    assert await dirty(owner, ada) == {}
    assert await conflicts(owner, ada) == []


async def test_a_record_we_created_is_not_added_to_itself(db, owner):
    """The outcome of a create is unknown; HubSpot's record names our contact and shows our own number."""
    bea = await make_local_contact(db, student_id="BEA1")
    await grant(db, bea, "sj_credits", 4)
    await pushed(owner, bea, 1)
    shown = history((1, 4, True))
    answer = remote_contact(
        hubspot_id="9001",
        student_id="BEA1",
        email=bea.email,
        credits={"sj_credits": 4},
        empty=frozenset(MIRRORED) - {"sj_credits"},
        stamp="1 sj_credits=4",
        tallybook_id=str(bea.id),
        updated_at=at(1),
        history=shown,
    )
    absorbed = await absorb_contacts(db, [answer], first_reason="crm_link")
    assert (absorbed["9001"].contact_id, absorbed["9001"].outcome) == (bea.id, Outcome.ABSORBED)
    assert (await balances(db, bea))["sj_credits"] == 4
    assert await dirty(owner, bea) == {}


async def test_a_write_this_database_does_not_know_stops_the_pushing(db, owner, ada):
    """It comes from a backup: no number is merged, the contact is frozen, a person has to reconcile."""
    await pushed(owner, ada, 3)
    assert await absorb(db, ada, 9, stamp="8 sj_credits=1", credits={"sj_credits": 1}) is Outcome.AHEAD
    assert (await balances(db, ada))["sj_credits"] == 5
    assert await conflicts(owner, ada) == [("tallybook_sync", "ahead", "3", "8 sj_credits=1")]
    assert (await one(owner, "select tallybook.push_hold()"))[0] == "restored"
    await grant(db, ada, "sj_credits", 1)
    assert await dirty(owner, ada) == {}


async def test_a_database_that_meets_stamps_for_the_first_time_goes_on_from_their_number(db, owner):
    """Nothing is lost by adding HubSpot's numbers to nothing; the next write has a higher number."""
    eve = await make_contact(db, credits=None)
    await owner.execute("update tallybook.contacts set crm_modified_at = null where id = %s", (eve.id,))
    assert await absorb(db, eve, 0, stamp="8 sj_credits=1", credits={"sj_credits": 1}) is Outcome.ABSORBED
    assert (await balances(db, eve))["sj_credits"] == 1
    assert (await one(owner, "select write_no from tallybook.contacts where id = %s", eve.id))[0] == 8


# -- portals whose histories give one request several times --------------------------------------------------


@pytest.fixture
async def eve(db, owner):
    """5 sj_credits written by our first request, read back as of second 10; people may have typed since."""
    contact = await make_contact(db, credits=None)
    await absorb(db, contact, 0, credits={"sj_credits": 3})
    await grant(db, contact, "sj_credits", 2)
    await pushed(owner, contact, 2)
    read = near((0, 3, 0), (9.2, 5, 1), stamps=STAMPS[:1])
    numbers = {"sj_credits": 5}
    assert await absorb(db, contact, 10, stamp=STAMPS[0], credits=numbers, history=read) is Outcome.ABSORBED
    assert await dirty(owner, contact) == {}
    return contact


STAMPS = ("1 sj_credits=5", "2 sj_credits=5")


def near(*entries, stamps=STAMPS):
    """A history of such a portal."""
    return history(*entries, stamps=stamps, own_within=ONE_REQUEST)


async def test_an_entry_older_than_the_last_answer_may_be_newer_than_it(db, owner, eve):
    """A person typed 7 after we had read, we wrote 8 over it; both have times from before that reading."""
    await grant(db, eve, "sj_credits", 3)
    shown = near((0, 3, 0), (9.2, 5, 1), (9.7, 7, 0), (9.8, 8, 2), stamps=(STAMPS[0], "2 sj_credits=8"))
    outcome = await absorb(db, eve, 11, stamp="2 sj_credits=8", credits={"sj_credits": 8}, history=shown)
    assert outcome is Outcome.ABSORBED
    assert (await balances(db, eve))["sj_credits"] == 10
    assert await dirty(owner, eve) == {"sj_credits": 10}
    assert await conflicts(owner, eve) == []


async def test_control_with_times_taken_for_exact_such_a_number_freezes(db, owner, eve):
    """Negative control: what is older than the last answer was in it, but ends at another number."""
    await grant(db, eve, "sj_credits", 3)
    shown = history((0, 3, 0), (9.2, 5, 1), (9.7, 7, 0), (9.8, 8, 2), stamps=(STAMPS[0], "2 sj_credits=8"))
    await absorb(db, eve, 11, stamp="2 sj_credits=8", credits={"sj_credits": 8}, history=shown)
    assert await conflicts(owner, eve) == [("sj_credits", "gap", "8", "8")]


async def test_an_own_write_that_brings_the_base_back_hides_no_edit(db, owner, eve):
    """5, 7 typed, 5 ours again: by the times all of it could have been read, by the stamps it was not."""
    shown = near((0, 3, 0), (9.2, 5, 1), (9.7, 7, 0), (9.9, 5, 2))
    outcome = await absorb(db, eve, 11, stamp=STAMPS[1], credits={"sj_credits": 5}, history=shown)
    assert outcome is Outcome.ABSORBED
    assert (await balances(db, eve))["sj_credits"] == 7
    assert await conflicts(owner, eve) == []


async def test_edits_around_the_time_of_the_last_answer_are_counted_once(db, owner, eve):
    """A person's 6 was in the last answer, their 5 after it was not: the sum is what counts."""
    await absorb(db, eve, 10.5, stamp=STAMPS[0], credits={"sj_credits": 6})
    await grant(db, eve, "sj_credits", 1)
    shown = near(
        (0, 3, 0), (9.2, 5, 1), (10.4, 6, 0), (10.6, 5, 0), (11, 7, 2), stamps=(STAMPS[0], "2 sj_credits=7")
    )
    await absorb(db, eve, 11, stamp="2 sj_credits=7", credits={"sj_credits": 7}, history=shown)
    assert (await balances(db, eve))["sj_credits"] == 6
    assert await conflicts(owner, eve) == []


async def test_entries_that_are_lost_freeze_a_number_there_too(db, owner, eve):
    """Nothing of what is shown is the base: what came between is unknown."""
    shown = near((15, 9, 0), (16, 5, 2))
    await absorb(db, eve, 16, stamp=STAMPS[1], credits={"sj_credits": 5}, history=shown)
    assert await conflicts(owner, eve) == [("sj_credits", "gap", "5", "5")]


@pytest.mark.parametrize(("own_within", "balance"), [(ONE_REQUEST, 7), (SAME_TIME, 5)])
async def test_more_typed_than_hubspot_keeps_is_the_difference_there_too(db, owner, eve, own_within, balance):
    """Nobody but people wrote this number, though the oldest entry left is older than the last answer."""
    await grant(db, eve, "cs_credits", 1)
    stamp = "2 cs_credits=1"
    shown = history(
        (9.8, 6, 0),
        (10.5, 7, 0),
        cs_credits=((-9, 0, 0), (11, 1, 2)),
        stamps=(STAMPS[0], stamp),
        own_within=own_within,
    )
    await absorb(db, eve, 11, stamp=stamp, credits={"sj_credits": 7, "cs_credits": 1}, history=shown)
    assert (await balances(db, eve))["sj_credits"] == balance
    assert [kind for _, kind, *_ in await conflicts(owner, eve)] == ["gap"] * (balance == 5)
