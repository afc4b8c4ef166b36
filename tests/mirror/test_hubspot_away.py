"""HubSpot gone, the worker gone: students notice nothing, and what waited arrives afterwards."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from proof.play import Plan, sessions_made_here
from proof.quiet import quiet_stage
from proof.truth import CREDITS

AWAY = {"path": "^/(crm|account|crm-object)", "times": 10**9}
STUDENTS = 60
_OF_WHOM = {
    "student_id",
    "student_name",
    "email",
    "contact_id",
    "hubspot_id",
    "id",
    "booking_id",
    "booking_record_id",
}
_OF_WHEN = {"cancelled_at", "updated_at", "as_of", "source"}


@pytest.fixture(scope="module")
async def stage(postgres_server, tmp_path_factory):
    """A server, a worker, students with ten credits of each type, four sessions with 25 seats."""
    made = sessions_made_here(Plan(sessions=20))
    async with quiet_stage(
        postgres_server, tmp_path_factory.mktemp("away"), contacts=STUDENTS + 4, workers=1, sessions=made
    ) as stage:
        for hubspot_id in await stage.portal.everything("contact"):
            await stage.portal.type("contact", hubspot_id, dict.fromkeys(CREDITS, "10"), expect={})
        await stage.settle()
        yield stage
        await stage.command("verify")


async def sessions(stage):
    """{mock type: our id}."""
    return dict(await stage.run("select mock_type, id::text from tallybook.mock_exams"))


async def ask(stage, method, path, number, **body):
    """(status, body) of one student's request; their number names them."""
    pair = {"student_id": str(1_599_000 + number), "email": f"student{number}@example.com"}
    answer = await stage.http.request(method, path, json=pair | body)
    return answer.status_code, answer.json()


async def a_day_of(stage, number):
    """What one student is told all day long, without what is never the same."""
    exams = await sessions(stage)
    said = []

    async def does(method, path, **body):
        status, answer = await ask(stage, method, path, number, **body)
        told = answer.get("data") or answer["error"]
        said.append(
            (status, {name: value for name, value in told.items() if name not in _OF_WHOM | _OF_WHEN})
        )
        return told

    talk, sj = exams["Mock Discussion"], exams["Situational Judgment"]
    await does("POST", "/api/mock-exams/validate-credits", mock_type="Clinical Skills")
    booked = await does("POST", "/api/bookings/create", mock_exam_id=sj)
    await does("POST", "/api/bookings/create", mock_exam_id=sj)
    await does("POST", "/api/mock-discussions/create-booking", mock_exam_id=talk)
    await does("DELETE", f"/api/bookings/{booked['id']}")
    await does("DELETE", f"/api/bookings/{booked['id']}")
    await does("POST", "/api/bookings/create", mock_exam_id=sj)
    on = (datetime.now(UTC) + timedelta(days=90)).date().isoformat()
    await does("PUT", "/api/user/update-ndecc-date", ndecc_exam_date=on)
    return said


async def test_what_a_student_may_do_depends_neither_on_hubspot_nor_on_the_worker(stage):
    """The same day four times: all well, HubSpot refusing, HubSpot hanging, and nobody at work at all."""
    with_all = await a_day_of(stage, STUDENTS)
    await stage.portal.door("faults", **AWAY, status=503)
    refusing = await a_day_of(stage, STUDENTS + 1)
    await stage.portal.mend()
    await stage.portal.door("faults", **AWAY, delay_ms=30_000)
    hanging = await a_day_of(stage, STUDENTS + 2)
    stage.kill_workers()
    alone = await a_day_of(stage, STUDENTS + 3)
    await stage.portal.mend()
    stage.start_worker()
    await stage.end_leases()

    assert [status for status, _ in with_all] == [200, 201, 200, 201, 200, 200, 201, 200]
    for other in (refusing, hanging, alone):
        assert other == with_all
    await stage.settle(90)


async def test_what_was_booked_while_hubspot_was_off_arrives_when_it_is_back(stage):
    """Sixty bookings into nothing; then all are there, with both associations, within the limits."""
    exam = (await sessions(stage))["Clinical Skills"]
    await stage.run("update tallybook.mock_exams set capacity = 100 where id = %s", exam)
    await stage.portal.door("faults", **AWAY, status=503)
    began = time.monotonic()
    answers = await asyncio.gather(
        *(ask(stage, "POST", "/api/bookings/create", n, mock_exam_id=exam) for n in range(STUDENTS))
    )
    took_s = time.monotonic() - began
    assert {status for status, _ in answers} == {201}
    waiting = await stage.run("select count(*) from tallybook.outbox where object_type = 'booking'")
    assert waiting[0][0] >= STUDENTS

    back = time.monotonic()
    await stage.settle(120)
    later_s = time.monotonic() - back
    print(
        f"{STUDENTS} bookings in {took_s:.1f} s without HubSpot; all there {later_s:.1f} s after it came back"
    )
    shown = await stage.portal.everything("booking", ("tallybook_id", "is_active"))
    ids = {body["data"]["id"] for _, body in answers}
    found = {each["properties"]["tallybook_id"]: key for key, each in shown.items()}
    assert ids <= found.keys()
    assert len(found) == len(shown)
    for booking_id in ids:
        record = await stage.portal.record("booking", found[booking_id])
        assert [len(record["associations"][kind]) for kind in ("contacts", "mock_exams")] == [1, 1]
    assert (await stage.portal.stats())["rejected_429"] == 0
