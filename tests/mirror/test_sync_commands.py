"""What staff see of the mirror, and what their decisions about it change."""

import asyncio
import json
import signal
from collections import Counter
from datetime import timedelta
from uuid import uuid4

import pytest

from support.commands import SECRET_KEY, CommandLine
from support.factories import balances, book, grant, make_contact, make_mock_exam
from support.push_world import BOOKING, CONTACT, MOCK_EXAM, TOKEN
from tallybook.domain.errors import ConfirmationStale, NotFound, ValidationError
from tallybook.domain.mirror import MirroredType
from tallybook.usecases.discard_dead_letter import discard_dead_letter
from tallybook.usecases.list_conflicts import list_conflicts
from tallybook.usecases.list_dead_letters import LetterType, list_dead_letters
from tallybook.usecases.record_crm_calls import record_crm_calls
from tallybook.usecases.resolve_conflict import Choice, resolve_conflict
from tallybook.usecases.resume_lane import resume_lane
from tallybook.usecases.retry_dead_letters import retry_all_dead_letters, retry_dead_letter
from tallybook.usecases.show_sync_status import show_sync_status

WAITING = (
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
)


@pytest.fixture
def tallybook(tmp_path, database_uri):
    """The command on the test's database."""
    settings = {
        "DATABASE_URL": database_uri,
        "TALLYBOOK_SECRET_KEY": SECRET_KEY,
        "TALLYBOOK_LOGIN_CODE": "none",
    }
    return CommandLine(tmp_path, settings)


async def rows(owner, statement, *values):
    cursor = await owner.execute(statement, values)
    return await cursor.fetchall() if cursor.description else []


async def make_dead(db, owner, *, words="INVALID_OPTION: no such place"):
    """A booking that HubSpot refuses; gives its UUID."""
    contact = await make_contact(db, credits={"sj_credits": 3})
    booking = await book(db, contact, await make_mock_exam(db))
    await rows(
        owner,
        "update tallybook.outbox set dead_at = now(), attempts = 5, last_error = %s where object_id = %s",
        words,
        booking["id"],
    )
    return booking["id"]


async def make_conflict(owner, contact, *, field="sj_credits", kind="below_zero", ours="0", theirs="2"):
    await rows(
        owner,
        "select tallybook.open_conflict('contact', %s, %s, %s, %s, %s, '{}', false)",
        contact.id,
        field,
        kind,
        ours,
        theirs,
    )
    ((conflict_id,),) = await rows(
        owner, "select id from tallybook.sync_conflicts where object_id = %s and kind = %s", contact.id, kind
    )
    return conflict_id


def lane_of(status, name):
    return next(each for each in status["lanes"] if each["lane"] == name)


async def test_an_empty_mirror_has_nothing_to_say(db):
    """Every lane is there with zeros, so that a monitor sees a figure and not a gap."""
    status = await show_sync_status(db)
    assert [each["lane"] for each in status["lanes"]] == ["booking", "contact", "mock_exam", "pull"]
    for lane in status["lanes"]:
        assert (lane["waiting"], lane["oldest_s"], lane["dead_letters"], lane["paused"]) == (0, 0, 0, None)
    assert status["conflicts"] == {"open": 0, "by_kind": []}
    assert (status["hold"], status["alerts"], status["pulled"], status["budget"]) == (None, [], [], [])


async def test_the_status_tells_depth_and_age_of_each_lane(db, owner):
    """Twenty changes of ages 0 to 190 s: the oldest is 190, and 95 % are younger than 181."""
    contact = await make_contact(db, credits={})
    await rows(owner, "delete from tallybook.outbox")
    for n in range(20):
        await rows(
            owner,
            "insert into tallybook.outbox (object_type, object_id, dirty_since, leased_until)"
            " values ('booking', %s, now() - %s, case when %s < 3 then now() + interval '1 minute' end)",
            uuid4(),
            timedelta(seconds=10 * n),
            n,
        )
    await rows(
        owner,
        "insert into tallybook.inbox"
        " (object_type, hubspot_id, subscription_type, received_at, next_attempt_at) values"
        " ('contact', '1', 'reread', now() - interval '1 hour', now() - interval '30 s'),"
        " ('contact', '2', 'reread', now() - interval '1 hour', now() + interval '30 s')",
    )
    await make_conflict(owner, contact)
    await make_conflict(owner, contact, field="cs_credits", kind="unreadable", theirs="12abc")
    status = await show_sync_status(db)
    booking, pull = lane_of(status, "booking"), lane_of(status, "pull")
    assert (booking["waiting"], booking["under_way"], booking["dead_letters"]) == (20, 3, 0)
    assert booking["oldest_s"] == pytest.approx(190, abs=5)
    assert booking["p95_s"] == pytest.approx(180, abs=5)
    # A hint that is not due yet is not late.
    assert (pull["waiting"], pull["oldest_s"]) == (2, pytest.approx(30, abs=5))
    assert status["conflicts"]["open"] == 2
    assert [each["kind"] for each in status["conflicts"]["by_kind"]] == ["below_zero", "unreadable"]
    # These objects do not exist.
    await rows(owner, "delete from tallybook.outbox")


async def test_calls_of_all_processes_are_added_up(db):
    """Two processes, two kinds; the time of the last 429 stays."""
    await record_crm_calls(db, {"push": (10, 0), "pull": (2, 1)})
    await record_crm_calls(db, {"push": (5, 0), "pull": (3, 0)})
    await record_crm_calls(db, {})
    budget = {each["kind"]: each for each in (await show_sync_status(db))["budget"]}
    assert {kind: (each["calls"], each["throttled"]) for kind, each in budget.items()} == {
        "push": (15, 0),
        "pull": (5, 1),
    }
    assert (budget["push"]["throttled_at"], budget["pull"]["throttled_at"] is None) == (None, False)


async def test_a_dead_letter_shows_hubspots_words_and_can_be_tried_again(db, owner):
    """Once it waits for its turn, asking again changes nothing; one that does not exist is NOT_FOUND."""
    booking = await make_dead(db, owner)
    found = await list_dead_letters(db)
    (letter,) = found["dead_letters"]
    assert (letter["type"], letter["id"], found["total"]) == ("booking", booking, 1)
    assert letter["words"] == "INVALID_OPTION: no such place"
    assert letter["label"].startswith("Situational Judgment-")
    answer = await retry_dead_letter(db, letter_type=LetterType.BOOKING, letter_id=booking)
    assert (answer.outcome, json.loads(answer.data)) == ("ok", {"retried": 1})
    assert (await list_dead_letters(db))["dead_letters"] == []
    assert lane_of(await show_sync_status(db), "booking")["waiting"] == 1
    assert (await retry_dead_letter(db, letter_type=None, letter_id=booking)).outcome == "already"
    for letter_type, letter_id in (
        (None, str(uuid4())),
        (LetterType.CONTACT, booking),
        (None, "7"),
        (None, "x"),
    ):
        with pytest.raises(NotFound):
            await retry_dead_letter(db, letter_type=letter_type, letter_id=letter_id)


async def test_all_dead_letters_are_tried_again_however_many(db, owner):
    """2,500 at most a thousand at a time; those of the inbox too."""
    await rows(
        owner,
        "insert into tallybook.outbox (object_type, object_id, dead_at)"
        " select 'contact', gen_random_uuid(), now() from generate_series(1, 2500)",
    )
    await rows(
        owner,
        "insert into tallybook.inbox (object_type, hubspot_id, subscription_type, dead_at)"
        " select 'contact', n::text, 'reread', now() from generate_series(1, 3) n",
    )
    assert await retry_all_dead_letters(db) == 2503
    assert await retry_all_dead_letters(db) == 0
    await rows(owner, "delete from tallybook.outbox")


async def test_dead_letters_come_in_pages(db, owner):
    """Each once, the oldest first."""
    await rows(
        owner,
        "insert into tallybook.inbox (object_type, hubspot_id, subscription_type, dead_at)"
        " select 'contact', n::text, 'reread', now() + make_interval(secs => n) from generate_series(1, 7) n",
    )
    pages = [await list_dead_letters(db, page=n, limit=3) for n in (1, 2, 3, 4)]
    assert [[each["hubspot_id"] for each in page["dead_letters"]] for page in pages] == [
        ["1", "2", "3"], ["4", "5", "6"], ["7"], [],
    ]  # fmt: skip
    assert {page["total"] for page in pages} == {7}
    assert (await list_dead_letters(db, letter_type=LetterType.BOOKING))["total"] == 0


async def test_a_discarded_letter_leaves_its_reason_in_the_audit_log(db, owner):
    """The booking stays; only telling HubSpot is given up. What still waits cannot be discarded."""
    booking = await make_dead(db, owner)
    with pytest.raises(ValidationError):
        await discard_dead_letter(db, letter_type=None, letter_id=booking, reason="  ", actor="cli:ada")
    await discard_dead_letter(
        db, letter_type=None, letter_id=booking, reason="entered by hand", actor="cli:ada"
    )
    ((actor, object_type, object_id, contact_id, details),) = await rows(
        owner,
        "select l.actor, l.object_type, l.object_id, l.contact_id, d.details"
        " from tallybook.audit_log l join tallybook.audit_details d on d.audit_id = l.id"
        " where l.action = 'dead_letter.discarded'",
    )
    assert (actor, object_type, object_id) == ("cli:ada", "booking", booking)
    assert details == {"reason": "entered by hand", "words": "INVALID_OPTION: no such place"}
    assert contact_id is not None
    with pytest.raises(NotFound):
        await discard_dead_letter(db, letter_type=None, letter_id=booking, reason="again", actor="cli:ada")
    contact = await make_contact(db, credits={})
    await rows(owner, "select tallybook.note_changes(array['contact'], array[%s::uuid])", contact.id)
    with pytest.raises(NotFound):
        await discard_dead_letter(
            db, letter_type=LetterType.CONTACT, letter_id=str(contact.id), reason="no", actor="cli:ada"
        )


async def test_a_lane_is_resumed_once(db, owner):
    """Who did it stays in the audit log; a lane that runs is left as it is."""
    await rows(
        owner,
        "update tallybook.sync_lanes set paused_at = now(), reason = 'token' where lane = 'booking'",
    )
    assert lane_of(await show_sync_status(db), "booking")["paused"]["reason"] == "token"
    assert (await resume_lane(db, lane="booking", actor="staff:1")).outcome == "ok"
    assert lane_of(await show_sync_status(db), "booking")["paused"] is None
    assert (await resume_lane(db, lane="booking", actor="staff:1")).outcome == "already"
    assert await rows(
        owner, "select actor, object_id from tallybook.audit_log where action = 'lane.resumed'"
    ) == [("staff:1", "booking")]
    with pytest.raises(NotFound):
        await resume_lane(db, lane="nothing", actor="staff:1")


async def test_after_a_resumption_the_next_pause_is_short_again(db, owner):
    """What failed before was put right; the pauses grow from the first one on."""
    await rows(owner, "update tallybook.sync_lanes set failures = 9, paused_at = now(), reason = 'token'")
    await resume_lane(db, lane="booking", actor="staff:1")

    await rows(owner, "select tallybook.pause_lane('booking', 'token', 'no', 10, 300)")

    ((wait_s,),) = await rows(
        owner,
        "select extract(epoch from resume_at - now())::float from tallybook.sync_lanes"
        " where lane = 'booking'",
    )
    assert 9 < wait_s < 13


async def test_conflicts_show_both_values_and_whom_they_are_about(db, owner):
    """Open ones unless asked for all; by type and kind; in pages."""
    contact = await make_contact(db, credits={})
    first = await make_conflict(owner, contact)
    second = await make_conflict(
        owner, contact, field="email", kind="both_changed", ours="a@b.c", theirs="d@e.f"
    )
    found = await list_conflicts(db)
    assert [each["id"] for each in found["conflicts"]] == [first, second]
    assert found["conflicts"][0] | {"opened_at": 0} == {
        "id": first, "object_type": "contact", "object_id": str(contact.id),
        "hubspot_id": contact.hubspot_id, "label": f"{contact.student_id} Ada Lovelace",
        "field": "sj_credits", "kind": "below_zero", "ours": "0", "theirs": "2", "details": {},
        "freezes": False, "opened_at": 0, "resolved_at": None, "resolved_by": None, "resolution": None,
    }  # fmt: skip
    await rows(
        owner,
        "update tallybook.sync_conflicts set resolved_at = now(), resolved_by = 'system' where id = %s",
        first,
    )
    assert [each["id"] for each in (await list_conflicts(db))["conflicts"]] == [second]
    assert (await list_conflicts(db, kind="below_zero"))["total"] == 0
    everything = await list_conflicts(db, with_resolved=True, limit=1, page=2)
    assert ([each["id"] for each in everything["conflicts"]], everything["total"]) == ([second], 2)


async def decide(db, conflict_id, choice, value=None, *, reason="seen"):
    return await resolve_conflict(
        db, conflict_id=conflict_id, choice=choice, value=value, reason=reason, actor="cli:ada"
    )


async def test_a_decision_is_checked_before_anything_happens(db, owner):
    """A value without its choice, a choice without its value, no reason, no such conflict."""
    conflict = await make_conflict(owner, await make_contact(db, credits={}))
    for choice, value, reason in (
        (Choice.VALUE, None, "seen"),
        (Choice.OURS, "3", "seen"),
        (Choice.OURS, None, " "),
        (Choice.VALUE, "x" * 501, "seen"),
    ):
        with pytest.raises(ValidationError):
            await decide(db, conflict, choice, value, reason=reason)
    with pytest.raises(NotFound):
        await decide(db, conflict + 1000, Choice.OURS)
    assert (await list_conflicts(db))["total"] == 1


async def test_what_was_decided_is_not_decided_again(db, owner):
    """The same decision is recognised; another one is told that the conflict is gone."""
    conflict = await make_conflict(owner, await make_contact(db, credits={}))
    await rows(
        owner,
        "update tallybook.sync_conflicts"
        " set resolved_at = now(), resolved_by = 'staff:1', resolution = 'theirs' where id = %s",
        conflict,
    )
    assert (await decide(db, conflict, Choice.THEIRS)).outcome == "already"
    with pytest.raises(ConfirmationStale) as caught:
        await decide(db, conflict, Choice.OURS)
    assert caught.value.details == {"resolved_by": "staff:1", "resolution": "theirs"}


async def test_the_commands_of_a_person_at_a_terminal(tallybook, db, owner):
    """Status, lists and decisions, as text and as JSON."""
    booking = await make_dead(db, owner)
    await rows(
        owner, "update tallybook.sync_lanes set paused_at = now(), reason = 'token' where lane = 'contact'"
    )
    shown = tallybook("sync", "status").stdout
    assert "dead_letters" in shown
    assert "token" in shown
    assert lane_of(tallybook.json("sync", "status"), "booking")["dead_letters"] == 1
    assert booking in tallybook("sync", "dead").stdout
    assert "There are no conflicts." in tallybook("sync", "conflicts").stdout
    assert tallybook("sync", "retry", booking).stdout == "1 dead letters will be tried again.\n"
    assert tallybook("sync", "resume", "contact").stdout == "The lane contact goes on.\n"
    tallybook.error("sync", "retry")
    tallybook.error("sync", "discard", booking, "--reason", "it is not dead any more")
    tallybook.error("sync", "resolve", "1", "ours", "--reason", "there is none")
    tallybook.error("sync", "resume", "nothing", code=2)


async def test_each_type_of_object_has_somebody_who_resolves_its_conflicts(db):
    """The common function hands over to resolve_<type>_conflict, whatever types there are."""
    async with db.connection() as connection:
        for each in MirroredType:
            name = (
                f"tallybook.resolve_{each.value}_conflict(tallybook.sync_conflicts, text, text, text, text)"
            )
            cursor = await connection.execute("select to_regprocedure(%s) is not null", (name,))
            assert await cursor.fetchone() == (True,), name


async def test_a_decision_about_a_number_is_an_entry_and_a_line_in_the_audit_log(db, owner):
    """The balance is as decided, HubSpot will be told, and the conflict says who decided and how."""
    contact = await make_contact(db, credits={"sj_credits": 3})
    await rows(owner, "delete from tallybook.outbox")
    conflict = await make_conflict(owner, contact, kind="unreadable", ours="3", theirs="12abc")
    answer = await decide(db, conflict, Choice.VALUE, "12", reason="she meant 12")
    settled = json.loads(answer.data)
    assert (answer.outcome, settled["resolved_by"], settled["resolution"]) == ("ok", "cli:ada", "value: 12")
    assert (await balances(db, contact))["sj_credits"] == 12
    assert await rows(owner, "select object_id from tallybook.outbox") == [(contact.id,)]
    ((changes, details),) = await rows(
        owner,
        "select l.changes, d.details from tallybook.audit_log l"
        " join tallybook.audit_details d on d.audit_id = l.id where l.action = 'conflict.resolved'",
    )
    assert (changes["conflict"], changes["choice"], changes["kind"]) == (conflict, "value", "unreadable")
    assert (details["reason"], details["value"], details["theirs"]) == ("she meant 12", "12", "12abc")
    assert (await list_conflicts(db))["total"] == 0
    assert (await decide(db, conflict, Choice.VALUE, "12")).outcome == "already"


async def test_of_many_who_decide_at_once_one_is_followed(db, owner, superuser):
    """Eight people, four with one number and four with another: one entry, and the others are told."""
    contact = await make_contact(db, credits={"sj_credits": 3})
    conflict = await make_conflict(owner, contact, kind="unreadable", ours="3", theirs="many")
    async with owner.transaction():
        await rows(owner, "select from tallybook.contacts where id = %s for update", contact.id)
        deciding = [
            asyncio.create_task(decide(db, conflict, Choice.VALUE, str(10 + n % 2))) for n in range(8)
        ]
        # All of them have begun before the first can go on.
        while (await rows(superuser, WAITING)) != [(8,)]:  # noqa: ASYNC110 - what is waited for is in the database.
            await asyncio.sleep(0.01)
    found = await asyncio.gather(*deciding, return_exceptions=True)
    outcomes = Counter(
        each.outcome if not isinstance(each, Exception) else type(each).__name__ for each in found
    )
    assert outcomes == {"ok": 1, "already": 3, "ConfirmationStale": 4}
    ((entries,),) = await rows(
        owner,
        "select count(*) from tallybook.credit_entries where contact_id = %s and credit_type = 'sj_credits'"
        " and reason <> 'import'",
        contact.id,
    )
    assert entries == 1


async def test_a_refused_decision_changes_nothing(db, owner):
    """A number that is none: the conflict stays open, nothing is in the audit log."""
    contact = await make_contact(db, credits={"sj_credits": 3})
    conflict = await make_conflict(owner, contact, kind="unreadable", ours="3", theirs="many")
    with pytest.raises(ValidationError):
        await decide(db, conflict, Choice.VALUE, "a lot")
    assert (await list_conflicts(db))["total"] == 1
    assert await rows(owner, "select 1 from tallybook.audit_log where action = 'conflict.resolved'") == []
    assert (await balances(db, contact))["sj_credits"] == 3


async def test_push_writes_what_waits_and_shows_it_first_when_asked(world, tallybook, portal):
    """A dry run changes nothing on either side; a push that leaves a dead letter fails."""
    settings = {"HS_PRIVATE_APP_TOKEN": TOKEN, "HUBSPOT_BASE_URL": portal.url}
    contact = await world.student(credits={"sj_credits": 3})
    await book(world.db, contact, await world.exam(mirrored=False))
    before = await world.outbox()
    planned = tallybook.json("sync", "push", "--dry-run", **settings)
    assert {each["object_type"]: each["action"] for each in planned} == {
        "contact": "update", "mock_exam": "upsert", "booking": "wait",
    }  # fmt: skip
    assert "sj_credits 2" in tallybook("sync", "push", "--dry-run", **settings).stdout
    assert await world.outbox() == before
    for _ in range(3):
        done = tallybook.json("sync", "push", **settings)
        await world.due()
    assert (done["done"], done["waiting"], done["paused"]) == (True, 0, {})
    assert await world.outbox() == {}
    assert "Nothing waits" in tallybook("sync", "push", "--dry-run", **settings).stdout
    assert "observe" in str(tallybook.error("sync", "push", TALLYBOOK_MODE="observe", **settings)).lower()
    await world.portal.post("settings", token="another token")
    error, _ = tallybook.error("sync", "push", **settings)
    await world.portal.post("settings", token=None)
    assert "HS_PRIVATE_APP_TOKEN was refused" in error


async def test_a_push_that_cannot_go_on_ends_and_says_what_waits(world, tallybook, portal):
    """A session that HubSpot will not have, and its booking: two wait, and it is not done."""
    settings = {"HS_PRIVATE_APP_TOKEN": TOKEN, "HUBSPOT_BASE_URL": portal.url}
    await book(world.db, await world.student(credits={"sj_credits": 3}), await world.exam(mirrored=False))
    await world.rows("update tallybook.outbox set dirty_since = now() - interval '1 day'")
    await world.portal_property(MOCK_EXAM, "capacity", exists=False)
    told = json.loads(tallybook("sync", "push", "--json", code=1, **settings).stdout)
    assert (told["done"], told["waiting"]) == (False, 2)
    assert told["paused"] == {"mock_exam": "unknown_property"}
    assert told["counts"]["written"] == 1


async def test_a_push_can_be_stopped_and_goes_on_later(world, tallybook, portal):
    """Ctrl-C ends it after what is on its way; what waits is there for the next one, once."""
    settings = {"HS_PRIVATE_APP_TOKEN": TOKEN, "HUBSPOT_BASE_URL": portal.url}
    for _ in range(3):
        await book(world.db, await world.student(credits={"sj_credits": 3}), await world.exam(mirrored=False))
    await world.fault("/batch/(update|upsert|create)$", delay_ms=1500, times=50)
    with tallybook.running("sync", "push", **settings) as process:
        await world.until(lambda: leased(world))
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 20) == 0
        assert "Stopping after what is on its way" in process.stderr.read()
    await world.portal.door.delete("/_simulator/faults")
    while await world.outbox():
        await world.due()
        tallybook("sync", "push", **settings)
    assert len(await world.records(BOOKING)) == 3


async def leased(world):
    return await world.value("select count(*) from tallybook.outbox where lease_token is not null")


async def test_pull_reads_what_changed_and_all_there_is_when_asked(world, tallybook, portal):
    """A number typed there is merged; a second pull finds nothing; --full brings in whom nobody hinted at."""
    settings = {"HS_PRIVATE_APP_TOKEN": TOKEN, "HUBSPOT_BASE_URL": portal.url}
    contact = await world.student(credits={"sj_credits": 3})
    tallybook("sync", "pull", **settings)
    await world.edit(CONTACT, contact.hubspot_id, sj_credits="8")
    assert tallybook.json("sync", "pull", **settings)["done"]
    assert (await balances(world.db, contact))["sj_credits"] == 8
    await world.create("contacts", email="new@example.com", student_id="N1", sj_credits="2")
    done = tallybook.json("sync", "pull", "--full", **settings)
    assert (done["done"], done["counts"]["students"]) == (True, 2)
    assert tallybook.json("contact", "show", "student:N1")["email"] == "new@example.com"


async def test_pull_leaves_the_searching_to_a_worker_that_runs(world, tallybook, portal):
    """It follows the hints there are and ends, instead of waiting for the lease."""
    settings = {"HS_PRIVATE_APP_TOKEN": TOKEN, "HUBSPOT_BASE_URL": portal.url}
    contact = await world.student(credits={"sj_credits": 3})
    await world.rows(
        "insert into tallybook.job_runs (job, lease_token, leased_until)"
        " values ('poll', gen_random_uuid(), now() + interval '1 minute')"
    )
    await world.edit(CONTACT, contact.hubspot_id, sj_credits="8")
    await world.rows("select tallybook.ask_to_read('contact', array[%s], 0)", contact.hubspot_id)
    assert "A worker is searching" in tallybook("sync", "pull", **settings).stdout
    assert (await balances(world.db, contact))["sj_credits"] == 8


async def test_reconcile_finds_what_nobody_remembers_and_repairs_it_when_asked(world, tallybook, portal):
    """A number typed long ago is merged, a change HubSpot was never told is counted, then queued."""
    settings = {"HS_PRIVATE_APP_TOKEN": TOKEN, "HUBSPOT_BASE_URL": portal.url}
    edited, forgotten = [await world.student(credits={"sj_credits": 3}) for _ in range(2)]
    await world.edit(CONTACT, edited.hubspot_id, sj_credits="8")
    await grant(world.db, forgotten, "sj_credits", 2)
    await world.forget_outbox()
    assert "Everything was compared." in tallybook("sync", "reconcile", **settings).stdout
    assert (await balances(world.db, edited))["sj_credits"] == 8
    assert await world.outbox() == {}
    done = tallybook.json("sync", "reconcile", "--repair", **settings)
    assert (done["done"], done["counts"]["unpushed"]) == (True, 1)
    assert list(await world.outbox()) == [forgotten.id]
    await world.rows(
        "update tallybook.job_runs set lease_token = gen_random_uuid(),"
        " leased_until = now() + interval '1 minute' where job = 'reconcile'"
    )
    assert "another reconcile is running" in tallybook.error("sync", "reconcile", **settings)[0]
