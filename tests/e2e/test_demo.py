"""`tallybook demo`: both sides in step, as a newcomer sees it; and nothing is left running."""

import asyncio
import json
import signal
import subprocess

import httpx
import psutil
import pytest

from e2e.service import BIN, Program, client, data_of
from support.worker import eventually

BOOKINGS = "2-50158943"


@pytest.fixture(scope="module")
async def demo(tmp_path_factory):
    """A running demo; what its ready file says is in `told`."""
    directory = tmp_path_factory.mktemp("demo")
    directory.chmod(0o711)
    ready = directory / "ready.json"
    program = Program(
        [BIN / "tallybook", "demo", "--port", "0", "--contacts", "200",
         "--data-dir", directory / "data", "--ready-file", ready],
        directory=directory,
        name="demo",
        environment={"XDG_DATA_HOME": str(directory), "XDG_STATE_HOME": str(directory)},
    )  # fmt: skip
    try:
        await program.said("Tallybook is running")
        program.told = json.loads(ready.read_text())
        program.pid = program.process.pid
        yield program
    finally:
        program.stop()


@pytest.fixture
async def door(demo):
    async with httpx.AsyncClient(base_url=demo.told["simulator_url"], trust_env=False, timeout=30) as http:
        yield http


@pytest.fixture
async def http(demo):
    async with client(demo.told["url"]) as http:
        yield http


async def there(door, object_type, hubspot_id):
    answer = await door.get(f"/_simulator/records/{object_type}/{hubspot_id}")
    answer.raise_for_status()
    return answer.json()


async def widest(http, mock_type):
    """The session of a type with most seats left."""
    sessions = data_of(await http.get("/api/mock-exams/available", params={"mock_type": mock_type}))
    return max(sessions, key=lambda each: each["available_slots"])


def key(demo):
    return {"authorization": f"Bearer {demo.told['api_key']}"}


async def test_a_booking_made_by_curl_is_in_hubspot_within_seconds(demo, door):
    """The line a newcomer pastes; then the record there, with both associations."""
    text = demo.text()
    lines = text[text.index("API=") :].replace("\\\n", "")
    names = [line for line in lines.splitlines() if line.startswith(("API=", "KEY="))]
    booking = next(line for line in lines.splitlines() if "bookings/create" in line)
    script = "\n".join((*names, booking))
    done = await asyncio.to_thread(subprocess.run, ["sh", "-c", script], capture_output=True, check=True)
    booked = json.loads(done.stdout)["data"]

    async def arrived():
        page = await door.get(
            f"/crm/v3/objects/{BOOKINGS}",
            params={"limit": 100, "properties": "booking_id"},
            headers={"authorization": "Bearer of-the-test"},
        )
        for each in page.json()["results"]:
            if each["properties"]["booking_id"] == booked["booking_id"]:
                record = await there(door, BOOKINGS, each["id"])
                if sum(len(linked) for linked in record["associations"].values()) == 2:
                    return record
        return None

    record, took_s = await eventually(arrived, within_s=5)
    print(f"a booking made by curl was in HubSpot with both associations after {took_s:.1f} s")
    assert record["properties"]["is_active"] == "Active"


async def test_a_balance_typed_over_while_fifty_students_book_is_the_sum_of_all_changes(demo, door, http):
    """Fifty students book while the balance of each is typed over: nothing is lost on either side."""
    session = await widest(http, "Mini-mock")
    wanted = {}
    students = [{"student_id": str(1_599_001 + n), "email": f"student{1 + n}@example.com"} for n in range(50)]
    before = {}
    for pair in students:
        found = data_of(
            await http.post(
                "/api/mock-exams/validate-credits", json={**pair, "mock_type": "Mini-mock"}, headers=key(demo)
            )
        )
        before[pair["email"]] = (found["contact_id"], found["credit_breakdown"]["specific_credits"])

    async def book(pair):
        answer = await http.post(
            "/api/bookings/create",
            json={**pair, "mock_exam_id": session["mock_exam_id"]},
            headers=key(demo),
        )
        return answer.status_code == 201

    async def type_over(pair, plus):
        hubspot_id, _ = before[pair["email"]]
        for _ in range(50):
            now = (await there(door, "contacts", hubspot_id))["properties"].get("sjmini_credits")
            answer = await door.post(
                "/_simulator/edits",
                json={
                    "object_type": "contacts",
                    "id": hubspot_id,
                    "properties": {"sjmini_credits": str(int(now or 0) + plus)},
                    "user": "coordinator",
                    "expect": {"sjmini_credits": now or ""},
                },
            )
            if answer.status_code == 200:
                return
        raise AssertionError("the field never stood still")

    booked = await asyncio.gather(
        *(book(pair) for pair in students), *(type_over(pair, 4 + n % 3) for n, pair in enumerate(students))
    )
    for n, pair in enumerate(students):
        _, balance = before[pair["email"]]
        wanted[pair["email"]] = balance + 4 + n % 3 - booked[n]
    print(f"{sum(map(bool, booked[:50]))} of 50 got a seat")

    async def agree():
        for pair in students:
            hubspot_id, _ = before[pair["email"]]
            here = data_of(
                await http.post(
                    "/api/mock-exams/validate-credits",
                    json={**pair, "mock_type": "Mini-mock"},
                    headers=key(demo),
                )
            )["credit_breakdown"]["specific_credits"]
            text = (await there(door, "contacts", hubspot_id))["properties"].get("sjmini_credits")
            if (here, int(text or 0)) != (wanted[pair["email"]],) * 2:
                return False
        return True

    await eventually(agree, within_s=60)


async def test_both_sides_are_found_equal(demo):
    """`tallybook verify --mirror` on the demo's database and portal finds no difference."""
    environment = {
        "DATABASE_URL": demo.told["database_url"],
        "HUBSPOT_BASE_URL": demo.told["simulator_url"],
        "HS_PRIVATE_APP_TOKEN": "demo",
    }

    async def clean():
        checked = Program(
            [BIN / "tallybook", "verify", "--mirror"],
            directory=demo.output.parent,
            name="verify",
            environment=environment,
        )
        code = await asyncio.to_thread(checked.process.wait, 60)
        checked.stop()
        clean.said = checked.text()
        return code == 0

    await eventually(clean, within_s=30)
    print(clean.said)


async def test_stopped_it_leaves_nothing_running(demo):
    """SIGTERM: server, worker, simulator and PostgreSQL end with it."""
    children = psutil.Process(demo.pid).children(recursive=True)
    names = {" ".join(each.cmdline()) for each in children}
    assert any("worker" in name for name in names), names
    demo.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(demo.process.wait, 30) == 0
    gone, left = await asyncio.to_thread(psutil.wait_procs, children, 10)
    assert left == [], [each.cmdline() for each in left]
    assert gone
