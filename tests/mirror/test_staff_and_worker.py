"""What staff meet while a worker runs: a revoked token becomes an alert, and both sides end equal."""

import asyncio
import json

import httpx
import pytest

from e2e.service import data_of
from support.commands import CommandLine
from support.factories import CATALOG, make_mock_exam
from support.portal import Portal
from support.receiver import SECRET, Receiver
from support.worker import Worker, eventually
from tallybook.domain.staff import StaffRole
from tallybook.usecases.create_staff import create_staff
from tallybook.usecases.prepare_portal import prepare_portal

PASSWORD = "a long password of the staff"


@pytest.fixture
async def service(start_service):
    return await start_service(contacts=20)


@pytest.fixture
async def portal(service):
    async with httpx.AsyncClient(base_url=service.simulator.url, trust_env=False) as door:
        found = Portal(service.simulator.url, door)
        async with found.client() as client:
            await prepare_portal(client, CATALOG)
        yield found


@pytest.fixture
async def staff(service):
    """The headers of an administrator."""
    account = {"email": "ada@example.com", "password": PASSWORD}
    await create_staff(service.db, **account, name=None, role=StaffRole.ADMIN, actor="cli:test")
    data = data_of(await service.http.post("/api/admin/login", json=account))
    return {"authorization": f"Bearer {data['token']}"}


async def test_a_revoked_token_is_told_and_after_it_nothing_is_lost(service, portal, staff, tmp_path):
    """Students book meanwhile; with the token back the alert is over and both sides are equal."""
    tallybook = CommandLine(tmp_path, service.environment)
    student = await service.sign_in(await known(service))
    exams = [await make_mock_exam(service.db, days=days) for days in (5, 6)]
    with Receiver().running() as receiver:
        alerts = {"TALLYBOOK_ALERT_URL": receiver.url, "TALLYBOOK_ALERT_SECRET": SECRET}
        worker = await Worker(service, **alerts).ready()
        try:
            await book(service, student, exams[0])
            await eventually(lambda: settled(service, staff))
            await portal.post("settings", token="another token")
            await book(service, student, exams[1])
            await eventually(lambda: told(receiver, "alert.opened"), within_s=60)
            status = data_of(await service.http.get("/api/admin/sync/status", headers=staff))
            assert sum(lane["waiting"] for lane in status["lanes"]) > 0
            await portal.post("settings", token=None)
            for lane in ("booking", "contact", "mock_exam", "pull"):
                path = f"/api/admin/sync/lanes/{lane}/resume"
                data_of(await service.http.post(path, json={}, headers=staff))
            await eventually(lambda: settled(service, staff), within_s=60)
            await eventually(lambda: told(receiver, "alert.cleared"), within_s=60)
        finally:
            worker.stop()
    assert {each["kind"] for each in receiver.messages} <= {"lane_paused", "mirror_stopped"}
    assert student.contact.email not in str(receiver.got)
    found = json.loads(tallybook("verify", "--mirror", "--wait", "20", "--json").stdout)
    assert found["ok"]
    assert found["mirror"]["compared"]["booking"]["compared"] == 2
    # Each state once, each with its end.
    states = sorted((each["kind"], each["subject"], each["event"]) for each in receiver.messages)
    assert len(states) == len(set(states))


async def known(service):
    """A student of the portal, stored here."""
    pair = service.unmet()
    data = data_of(await service.check(pair))
    await service.run(
        "select tallybook.adjust_credits(%s, 'sj_credits', 3, 'for a test', 'cli:test',"
        " 'cli:test', null, null, null, false)",
        data["id"],
    )

    class Known:
        id, hubspot_id = data["id"], data["contact_id"]
        student_id, email = pair["student_id"], pair["email"]

    return Known


async def book(service, student, exam):
    body = {"mock_exam_id": str(exam.id), "attending_location": "Mississauga"}
    data_of(await service.http.post("/api/bookings/create", json=body, headers=student.headers), 201)


async def settled(service, staff):
    status = data_of(await service.http.get("/api/admin/sync/status", headers=staff))
    return all(lane["waiting"] == 0 and lane["paused"] is None for lane in status["lanes"])


async def told(receiver, event):
    await asyncio.sleep(0)
    return any(each == event for each, _, _ in receiver.told)
