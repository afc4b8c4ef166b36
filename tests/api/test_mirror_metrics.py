"""The mirror's figures for Prometheus: of all processes, from one query, and none where nobody knows."""

import re

from support.factories import book, make_contact, make_mock_exam
from tallybook.usecases.record_crm_calls import record_crm_calls


async def figures(served):
    answer = await served.http.get("/metrics")
    assert answer.status_code == 200
    lines = re.findall(r"^(tallybook_mirror_\S+) (\S+)$", answer.text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


async def test_depth_age_dead_letters_conflicts_and_calls_are_figures(serve, db, owner):
    """Each lane has its own; an alert is one line while it is open."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    await book(db, contact, await make_mock_exam(db))
    await record_crm_calls(db, {"push": (7, 1)})
    await owner.execute(
        "update tallybook.outbox set dead_at = case when object_type = 'contact' then now() end,"
        " dirty_since = now() - interval '1 minute'"
    )
    await owner.execute("update tallybook.sync_lanes set paused_at = now(), reason = 'x' where lane = 'pull'")
    await owner.execute(
        "select tallybook.open_conflict('contact', %s, 'email', 'both_changed', 'a', 'b', '{}', false)",
        (contact.id,),
    )
    await owner.execute("select tallybook.raise_alert('lag', 'booking', '{}')")
    found = await figures(await serve(db=db))
    assert found['tallybook_mirror_waiting{lane="booking"}'] == 1
    assert found['tallybook_mirror_dead_letters{lane="contact"}'] == 1
    assert 60 <= found['tallybook_mirror_lag_oldest_seconds{lane="booking"}'] < 90
    assert 60 <= found['tallybook_mirror_lag_p95_seconds{lane="booking"}'] < 90
    assert found['tallybook_mirror_paused{lane="pull"}'] == 1
    assert found['tallybook_mirror_paused{lane="booking"}'] == 0
    assert found['tallybook_mirror_conflicts{kind="both_changed",object_type="contact"}'] == 1
    assert found['tallybook_mirror_alerts{kind="lag",subject="booking"}'] == 1
    assert found['tallybook_mirror_calls_total{kind="push"}'] == 7
    assert found['tallybook_mirror_throttled_total{kind="push"}'] == 1
    assert (found["tallybook_mirror_known"], found["tallybook_mirror_held"]) == (1, 0)


async def test_a_monitor_that_asks_often_costs_one_query(serve, db, owner):
    """The second answer within five seconds is the first one's figures."""
    served = await serve(db=db)
    assert (await figures(served))['tallybook_mirror_waiting{lane="contact"}'] == 0
    contact = await make_contact(db, credits={})
    await owner.execute("select tallybook.note_changes(array['contact'], array[%s::uuid])", (contact.id,))
    assert (await figures(served))['tallybook_mirror_waiting{lane="contact"}'] == 0


async def test_without_a_database_nothing_is_claimed(serve):
    """No zeros that would look like a mirror in step."""
    assert await figures(await serve()) == {"tallybook_mirror_known": 0}
