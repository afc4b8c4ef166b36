"""Alerts: each state is told once, signed, without personal data, and nothing waits for the receiver."""

import asyncio
import hashlib
import hmac
import json
from uuid import uuid4

import pytest

from support.factories import book, make_contact, make_mock_exam
from support.receiver import SECRET, Receiver
from tallybook.domain.errors import SetupError
from tallybook.jobs.send_alerts import harmless, send_alerts
from tallybook.outbound.alerts import AlertSender, AlertUnavailable
from tallybook.settings import load_settings
from tallybook.usecases.record_crm_calls import record_crm_calls
from tallybook.usecases.show_sync_status import show_sync_status
from tallybook.usecases.watch_mirror import AlertLimits, watch_mirror
from tallybook.usecases.watch_portal import watch_portal
from tallybook.wiring import alert_limits, alert_sender


@pytest.fixture
def receiver():
    with Receiver().running() as found:
        yield found


@pytest.fixture
async def sender(receiver):
    async with AlertSender(receiver.url, secret=SECRET, clock=lambda: 1_790_000_000.7) as found:
        yield found


async def run(owner, statement, *values):
    await owner.execute(statement, values)


async def pause(owner, lane="booking", *, reason="token"):
    await run(
        owner,
        "update tallybook.sync_lanes"
        " set paused_at = now(), reason = %s, words = 'ada@example.com' where lane = %s",
        reason,
        lane,
    )


async def resume(owner, lane="booking"):
    await run(
        owner,
        "update tallybook.sync_lanes set paused_at = null, reason = null, words = null where lane = %s",
        lane,
    )


async def test_an_alert_is_told_when_it_opens_and_when_it_is_over_each_once(db, owner, receiver, sender):
    """However often the job runs; the next time it opens it is told again."""
    for _ in range(3):
        await send_alerts(db, sender)
    assert receiver.told == []
    await pause(owner)
    for _ in range(3):
        await send_alerts(db, sender)
    assert receiver.told == [("alert.opened", "lane_paused", "booking")]
    await resume(owner)
    for _ in range(3):
        await send_alerts(db, sender)
    await pause(owner)
    await send_alerts(db, sender)
    assert [event for event, _, _ in receiver.told] == ["alert.opened", "alert.cleared", "alert.opened"]
    assert len({each["id"] for each in receiver.messages}) == 3


async def test_several_senders_at_once_tell_each_state_once(db, owner, receiver):
    """Four lanes pause; five runs at the same moment send four messages."""
    for lane in ("booking", "contact", "mock_exam", "pull"):
        await pause(owner, lane)
    senders = [AlertSender(receiver.url, secret=SECRET) for _ in range(5)]
    results = await asyncio.gather(*(send_alerts(db, each) for each in senders))
    assert sorted(subject for _, _, subject in receiver.told) == ["booking", "contact", "mock_exam", "pull"]
    assert sum(result.counts["sent"] for result in results) == 4
    for each in senders:
        await each.aclose()


async def test_a_message_is_signed_over_time_and_body(db, owner, receiver, sender):
    """A receiver that computes it by the documentation gets the same; the secret is not in it."""
    await pause(owner)
    await send_alerts(db, sender)
    ((headers, body),) = receiver.got
    assert headers["X-Tallybook-Timestamp"] == "1790000000"
    expected = hmac.new(SECRET.encode(), b"1790000000" + body, hashlib.sha256).hexdigest()
    assert headers["X-Tallybook-Signature"] == f"sha256={expected}"
    assert headers["Content-Type"] == "application/json"
    assert SECRET not in str(receiver.got)
    message = json.loads(body)
    assert message["text"] == f"Tallybook: lane_paused (booking) since {message['since']}: reason token"


async def test_an_alert_names_nobody(db, owner, receiver, sender):
    """Neither HubSpot's words nor what another part of the program wrote into the details."""
    await pause(owner)
    details = json.dumps({"email": "zoe@example.com", "said": "Zoe is ill", "source": "app:7", "writes": 11})
    await run(owner, "select tallybook.raise_alert('busy_contact', %s, %s::jsonb)", str(uuid4()), details)
    await send_alerts(db, sender)
    assert len(receiver.got) == 2
    assert "zoe" not in str(receiver.got).lower()
    told = {each["kind"]: each["details"] for each in receiver.messages}
    assert told == {"busy_contact": {"source": "app:7", "writes": 11}, "lane_paused": {"reason": "token"}}
    # Who did not raise it does not end it.
    await send_alerts(db, sender)
    assert [each["kind"] for each in (await show_sync_status(db))["alerts"]] == [
        "busy_contact",
        "lane_paused",
    ]


async def test_what_the_receiver_refuses_is_sent_again_later_and_not_before(db, owner, receiver, sender):
    """One attempt in a run; then a pause that grows; the status shows the alert meanwhile."""
    receiver.status = 503
    await pause(owner)
    result = await send_alerts(db, sender)
    assert (result.counts, result.done) == ({"sent": 0, "failed": 1}, False)
    await send_alerts(db, sender)
    assert len(receiver.got) == 1
    cursor = await owner.execute(
        "select attempts, last_error, extract(epoch from next_attempt_at - clock_timestamp())::float8"
        " from tallybook.sync_alerts"
    )
    attempts, error, wait_s = await cursor.fetchone()
    assert (attempts, error) == (1, "status 503")
    assert wait_s == pytest.approx(5, abs=3)
    receiver.status = 200
    await run(owner, "update tallybook.sync_alerts set next_attempt_at = now()")
    await send_alerts(db, sender)
    assert receiver.messages[0] == receiver.messages[1]
    assert len(receiver.got) == 2


async def test_a_sender_that_died_leaves_the_alert_to_the_next(db, owner, receiver, sender):
    """Its lease ends; until then nobody else sends."""
    await pause(owner)
    await watch_mirror(db, AlertLimits())
    await run(
        owner,
        "update tallybook.sync_alerts set lease_token = gen_random_uuid(),"
        " leased_until = now() + interval '1 minute'",
    )
    await send_alerts(db, sender)
    assert receiver.got == []
    await run(owner, "update tallybook.sync_alerts set leased_until = now()")
    await send_alerts(db, sender)
    assert len(receiver.got) == 1


async def test_what_was_over_before_anybody_was_told_is_passed_over(db, owner, receiver, sender):
    """The receiver was away for both: nothing to say any more."""
    await pause(owner)
    await send_alerts(db, None)
    await resume(owner)
    await send_alerts(db, sender)
    assert receiver.got == []


async def test_everything_that_passes_a_limit_is_an_alert(db, owner):
    """Lag, an old hint, a dead letter, a conflict, a pause, a stop of pushing, a 429; and they end."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    await book(db, contact, await make_mock_exam(db))
    await run(
        owner,
        "update tallybook.outbox set dirty_since = now() - interval '10 min' where object_type = 'booking'",
    )
    await run(owner, "update tallybook.outbox set dead_at = now() where object_type = 'contact'")
    await run(
        owner,
        "insert into tallybook.inbox"
        " (object_type, hubspot_id, subscription_type, received_at, next_attempt_at)"
        " select 'contact', '1', 'reread', t, t from (select now() - interval '10 min' as t) x",
    )
    await run(
        owner,
        "select tallybook.open_conflict('contact', %s, 'email', 'both_changed', 'a', 'b', '{}', false)",
        contact.id,
    )
    await run(
        owner, """insert into tallybook.sync_state (name, value) values ('hold', '{"reason": "epoch"}')"""
    )
    await record_crm_calls(db, {"push": (100, 2)})
    await pause(owner, "contact")
    for kind, mark in (("contact", "2026-01-01T00:00:00Z"), ("booking", None)):
        marks = json.dumps({"mark": mark, "deep_mark": mark, "under_way": None})
        await run(
            owner,
            "insert into tallybook.sync_state (name, value) values (%s, %s::jsonb)",
            f"poll:{kind}",
            marks,
        )
    await watch_mirror(db, AlertLimits())
    found = {(each["kind"], each["subject"]) for each in (await show_sync_status(db))["alerts"]}
    assert found == {
        ("lag", "booking"),
        ("inbox_lag", "pull"),
        ("poll_lag", "contact"),
        ("dead_letters", "contact"),
        ("conflicts", "contact:both_changed"),
        ("lane_paused", "contact"),
        ("push_held", ""),
        ("throttled", "push"),
    }
    await watch_mirror(db, AlertLimits(lag_s=3600, inbox_s=1e9, throttled_s=0))
    found = {(each["kind"], each["subject"]) for each in (await show_sync_status(db))["alerts"]}
    assert not {kind for kind, _ in found} & {"lag", "inbox_lag", "poll_lag", "throttled"}
    await resume(owner, "contact")
    await run(owner, "delete from tallybook.sync_conflicts")
    await run(owner, "delete from tallybook.sync_state where name in ('hold', 'poll:contact')")
    await run(owner, "update tallybook.outbox set dead_at = null, dirty_since = now()")
    await run(owner, "delete from tallybook.inbox")
    await watch_mirror(db, AlertLimits(throttled_s=0))
    assert (await show_sync_status(db))["alerts"] == []


async def test_a_receiver_that_is_away_or_moved_is_an_error_with_a_time(receiver, sender):
    """Nobody there, a refusal, a redirect: each may be tried again, none is followed elsewhere."""
    async with AlertSender("http://127.0.0.1:1/", secret=SECRET) as nobody:
        with pytest.raises(AlertUnavailable):
            await nobody.send({"event": "test"})
    for status in (301, 307, 400, 500):
        receiver.status = status
        with pytest.raises(AlertUnavailable, match="receiver"):
            await sender.send({"event": "test"})


@pytest.mark.parametrize("url", ["hooks.example.com", "ftp://example.com/x", "https://"])
def test_an_address_that_is_none_is_told_at_the_start(url):
    """With what to write instead."""
    with pytest.raises(SetupError):
        AlertSender(url, secret=SECRET)


async def test_settings_make_the_sender(receiver):
    """Without an address there is none; an address needs its secret; the limit is theirs."""
    assert alert_sender(load_settings({}, env_file=None)) is None
    with pytest.raises(SetupError, match="TALLYBOOK_ALERT_SECRET"):
        alert_sender(load_settings({"TALLYBOOK_ALERT_URL": receiver.url}, env_file=None))
    given = {
        "TALLYBOOK_ALERT_URL": receiver.url,
        "TALLYBOOK_ALERT_SECRET": SECRET,
        "TALLYBOOK_ALERT_LAG_S": "60",
    }
    settings = load_settings(given, env_file=None)
    assert (settings.warnings, alert_limits(settings).lag_s) == ((), 60.0)
    made = alert_sender(settings)
    await made.send({"event": "test"})
    await made.aclose()
    assert receiver.messages == [{"event": "test"}]


def test_only_words_numbers_and_ids_leave():
    """Whatever a detail is, it must not be able to name a person."""
    details = {"a": 1, "b": 2.5, "c": True, "d": "word", "e": "two words", "f": "x@y.z", "g": None, "h": [1]}
    assert harmless(json.dumps(details).encode()) == {"a": 1, "b": 2.5, "c": True, "d": "word"}


async def test_the_database_may_be_away(receiver, sender):
    """The job says so; nothing was sent."""
    from tallybook.domain.errors import DatabaseUnavailable
    from tallybook.postgres.pool import Database

    nothing = Database("postgresql://nobody@127.0.0.1:1/nothing", connect_timeout_s=1)
    with pytest.raises(DatabaseUnavailable):
        await send_alerts(nothing, sender)
    await nothing.close()
    assert receiver.got == []


async def test_a_portal_that_does_not_let_us_in_is_an_alert_until_it_does(world, receiver, sender):
    """A refused token and a token of another portal; a hold is told by another alert."""
    await watch_portal(world.mirror)
    await world.portal.post("settings", token="another token")
    for _ in range(2):
        with pytest.raises(SetupError):
            await watch_portal(world.mirror)
    await send_alerts(world.db, sender)
    await world.portal.post("settings", token=None)
    await watch_portal(world.mirror)
    await send_alerts(world.db, sender)
    assert receiver.told == [("alert.opened", "mirror_stopped", ""), ("alert.cleared", "mirror_stopped", "")]
    assert receiver.messages[0]["details"] == {"reason": "status_401"}
    await world.rows(
        "update tallybook.sync_state set value = value || %s::jsonb where name = 'portal'",
        json.dumps({"portal_id": 4711}),
    )
    with pytest.raises(SetupError):
        await watch_portal(world.mirror)
    (alert,) = (await show_sync_status(world.db))["alerts"]
    assert (alert["kind"], alert["details"]) == ("mirror_stopped", {"reason": "another_portal"})
