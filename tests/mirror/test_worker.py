"""The worker: both sides in step within seconds, whatever ends, and nothing that ends it."""

import asyncio
import secrets
import signal
import socket

import httpx
import pytest

from e2e.service import data_of
from support.factories import CATALOG, make_mock_exam
from support.portal import Portal
from support.worker import Worker, eventually
from tallybook.usecases.prepare_portal import prepare_portal

BOOKINGS, MOCK_EXAMS = "2-50158943", "2-50158913"
CLIENT_SECRET = "the secret of the app"


@pytest.fixture(scope="module")
async def service(start_service):
    """A service whose portal is prepared and sends webhooks; the worker is the test's."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    service = await start_service(
        contacts=200, port=port, HUBSPOT_CLIENT_SECRET=CLIENT_SECRET, TALLYBOOK_PUBLIC_URL=url
    )
    async with door_of(service) as portal:
        async with portal.client() as client:
            await prepare_portal(client, CATALOG)
        await portal.post("webhooks", url=f"{url}/api/webhooks/hubspot", secret=CLIENT_SECRET)
    return service


def door_of(service):
    class Opened:
        async def __aenter__(self):
            self.http = httpx.AsyncClient(base_url=service.simulator.url, trust_env=False, timeout=30)
            return Portal(service.simulator.url, self.http)

        async def __aexit__(self, *_):
            await self.http.aclose()

    return Opened()


@pytest.fixture
async def portal(service):
    """The back door."""
    async with door_of(service) as door:
        yield door


@pytest.fixture
async def worker(service):
    """A worker at work."""
    one = await Worker(service).ready()
    yield one
    one.stop()


@pytest.fixture
def student(service):
    """A student of the portal whom no test has met."""
    return service.unmet()


async def known(service, pair):
    """Our id and HubSpot's of a student who was looked up."""
    data = data_of(await service.check(pair))
    return data["id"], data["contact_id"]


async def record(portal, object_type, hubspot_id):
    answer = await portal.door.get(f"/_simulator/records/{object_type}/{hubspot_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def credits_here(service, contact_id, credit_type="sj_credits"):
    ((balance,),) = await service.run(
        "select balance from tallybook.credit_balances where contact_id = %s and credit_type = %s",
        contact_id,
        credit_type,
    )
    return balance


async def edit(portal, hubspot_id, **properties):
    await portal.post("edits", object_type="contacts", id=hubspot_id, properties=properties, user="ann")


async def book_seat(service, pair, exam):
    body = {**pair, "mock_exam_id": str(exam.id)}
    headers = service.as_app | {"idempotency-key": secrets.token_hex(8)}
    return data_of(await service.http.post("/api/bookings/create", json=body, headers=headers), 201)


async def settled(service):
    """Nothing waits to be pushed or read."""
    ((waiting,),) = await service.run(
        "select (select count(*) from tallybook.outbox) + (select count(*) from tallybook.inbox)"
        " + (select count(*) from tallybook.contacts where crm_unread)"
    )
    return waiting == 0


async def test_a_booking_is_in_hubspot_with_both_associations_within_seconds(
    service, portal, worker, student
):
    """And the seat count and the credit spent with it."""
    _, hubspot_id = await known(service, student)
    await edit(portal, hubspot_id, sj_credits="3")
    exam = await make_mock_exam(service.db, capacity=5)
    await eventually(lambda: is_balance(service, student, 3))
    booked = await book_seat(service, student, exam)

    async def arrived():
        rows = await service.run(
            "select b.hubspot_id, e.hubspot_id from tallybook.bookings b join tallybook.mock_exams e"
            " on e.id = b.mock_exam_id where b.id = %s and b.hubspot_id is not null",
            booked["id"],
        )
        return rows and rows[0]

    (booking_id, exam_id), took_s = await eventually(arrived)
    there, more_s = await eventually(lambda: with_associations(portal, booking_id))
    print(f"a booking was in HubSpot with both associations after {took_s + more_s:.1f} s")
    assert {str(each) for found in there["associations"].values() for each in ids_in(found)} == {
        hubspot_id,
        exam_id,
    }
    assert there["properties"]["is_active"] == "Active"

    async def told():
        contact = await record(portal, "contacts", hubspot_id)
        exam_there = await record(portal, MOCK_EXAMS, exam_id)
        return (
            contact["properties"]["sj_credits"] == "2" and exam_there["properties"]["total_bookings"] == "1"
        )

    await eventually(told)


async def is_balance(service, pair, balance):
    rows = await service.run(
        "select b.balance from tallybook.credit_balances b join tallybook.contacts c on c.id = b.contact_id"
        " where c.email = %s and b.credit_type = 'sj_credits'",
        pair["email"],
    )
    return rows and rows[0][0] == balance


def ids_in(found):
    return [each["id"] if isinstance(each, dict) else each for each in found]


async def with_associations(portal, booking_id):
    there = await record(portal, BOOKINGS, booking_id)
    return there if sum(len(found) for found in there["associations"].values()) == 2 else None


async def test_a_balance_typed_over_reaches_the_student_in_a_moment(service, portal, worker, student):
    """By webhook: long before the next search would find it."""
    contact_id, hubspot_id = await known(service, student)
    before = await credits_here(service, contact_id)
    took = []
    for n in range(5):
        await edit(portal, hubspot_id, sj_credits=str(before + 10 + n))
        _, seconds = await eventually(lambda n=n: is_balance(service, student, before + 10 + n))
        took.append(seconds)
    print(f"an edit reached the student after {', '.join(f'{each:.2f}' for each in took)} s")
    assert await eventually(lambda: settled(service))


async def test_without_webhooks_the_search_finds_it(service, portal, worker, student):
    """Dropped deliveries cost seconds and nothing else."""
    contact_id, hubspot_id = await known(service, student)
    before = await credits_here(service, contact_id)
    url = f"{service.server.url}/api/webhooks/hubspot"
    await portal.post("webhooks", url=url, secret=CLIENT_SECRET, drop=1.0)
    try:
        await edit(portal, hubspot_id, sj_credits=str(before + 7))
        _, seconds = await eventually(lambda: is_balance(service, student, before + 7))
        print(f"without a webhook it took {seconds:.1f} s")
    finally:
        await portal.post("webhooks", url=url, secret=CLIENT_SECRET)


async def test_edits_on_both_sides_at_once_add_up(service, portal, worker):
    """A balance is typed over while fifty bookings spend from it: the sum of all changes, on both sides."""
    pair = service.unmet()
    contact_id, hubspot_id = await known(service, pair)
    await edit(portal, hubspot_id, mock_discussion_token="60")
    await eventually(lambda: is_credit(service, contact_id, "mock_discussion_token", 60))
    exams = [
        await make_mock_exam(service.db, mock_type="Mock Discussion", days=60 + n, capacity=3)
        for n in range(50)
    ]

    async def type_over():
        typed = 0
        for n in range(5):
            await asyncio.sleep(0.4)
            now = (await record(portal, "contacts", hubspot_id))["properties"]["mock_discussion_token"]
            answer = await portal.door.post(
                "/_simulator/edits",
                json={
                    "object_type": "contacts",
                    "id": hubspot_id,
                    "properties": {"mock_discussion_token": str(int(now) + 3 + n)},
                    "user": "ann",
                    "expect": {"mock_discussion_token": now},
                },
            )
            typed += (3 + n) * (answer.status_code == 200)
        return typed

    async def spend():
        for exam in exams:
            body = {**pair, "mock_exam_id": str(exam.id)}
            data_of(
                await service.http.post(
                    "/api/mock-discussions/create-booking", json=body, headers=service.as_app
                ),
                201,
            )

    typed, _ = await asyncio.gather(type_over(), spend())
    wanted = 60 + typed - 50
    await eventually(lambda: settled(service), within_s=60)
    there = (await record(portal, "contacts", hubspot_id))["properties"]["mock_discussion_token"]
    assert (await credits_here(service, contact_id, "mock_discussion_token"), int(there)) == (wanted, wanted)
    await service.expect_clean()


async def is_credit(service, contact_id, credit_type, balance):
    return await credits_here(service, contact_id, credit_type) == balance


async def test_a_worker_killed_while_it_pulls_loses_nothing(service, portal):
    """kill -9 with a hundred hints under its lease: the next one follows them when the lease is over."""
    pairs = [service.unmet() for _ in range(40)]
    ids = [await known(service, pair) for pair in pairs]
    await portal.post("faults", path="/batch/read", times=1000, delay_ms=20_000)
    first = await Worker(service).ready()
    for _, hubspot_id in ids:
        await edit(portal, hubspot_id, cs_credits="21")

    async def leased():
        rows = await service.run("select count(*) from tallybook.inbox where lease_token is not null")
        return rows[0][0] > 0

    await eventually(leased)
    first.kill()
    await portal.door.delete("/_simulator/faults")
    await service.run("update tallybook.inbox set next_attempt_at = clock_timestamp()")
    second = await Worker(service).ready()
    try:
        for contact_id, _ in ids:
            await eventually(lambda c=contact_id: is_credit(service, c, "cs_credits", 21))
        await eventually(lambda: settled(service), within_s=60)
    finally:
        second.stop()


async def test_two_workers_share_the_work_and_neither_does_it_twice(service, portal):
    """Forty edits, one of them to each of forty students: each is read, and the numbers are right once."""
    workers = [await Worker(service).ready() for _ in range(2)]
    try:
        pairs = [service.unmet() for _ in range(40)]
        ids = [await known(service, pair) for pair in pairs]
        for _, hubspot_id in ids:
            await edit(portal, hubspot_id, sjmini_credits="31")
        for contact_id, _ in ids:
            await eventually(lambda c=contact_id: is_credit(service, c, "sjmini_credits", 31))
        await eventually(lambda: settled(service), within_s=30)
    finally:
        for each in workers:
            each.stop()
    await service.expect_clean()


async def test_told_to_stop_it_finishes_what_is_under_way(service, portal, student):
    """SIGTERM while HubSpot takes two seconds for an answer: it is merged, then the exit code is 0."""
    contact_id, hubspot_id = await known(service, student)
    worker = await Worker(service).ready()
    await portal.post("faults", path="/contacts/batch/read", times=1, delay_ms=2000)
    await edit(portal, hubspot_id, sj_credits="44")

    async def leased():
        rows = await service.run("select count(*) from tallybook.inbox where lease_token is not null")
        return rows[0][0] > 0

    await eventually(leased)
    worker.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(worker.process.wait, 20)
    worker.stop()
    assert code == 0, worker.text()
    assert await is_credit(service, contact_id, "sj_credits", 44)
    ((left,),) = await service.run("select count(*) from tallybook.inbox where lease_token is not null")
    assert left == 0


async def test_a_worker_survives_hubspot_being_away(service, portal, student):
    """Every call fails for some seconds; afterwards the edit arrives, and nobody restarted anything."""
    contact_id, hubspot_id = await known(service, student)
    await portal.post("faults", path="/crm|/account-info", times=100_000, status=503)
    worker = await Worker(service).ready()
    try:
        await edit(portal, hubspot_id, sj_credits="55")
        await worker.said('"job_failed"')
        assert worker.process.poll() is None
        await portal.door.delete("/_simulator/faults")
        await eventually(lambda: is_credit(service, contact_id, "sj_credits", 55), within_s=60)
    finally:
        worker.stop()


async def test_once_does_what_waits_and_ends(service, portal, student):
    """`--once`: an edit nobody followed is merged, then it stops by itself."""
    contact_id, hubspot_id = await known(service, student)
    await edit(portal, hubspot_id, sj_credits="66")
    worker = Worker(service, "--once")
    code = await asyncio.to_thread(worker.process.wait, 60)
    worker.stop()
    assert code == 0, worker.text()
    assert await is_credit(service, contact_id, "sj_credits", 66)
    done = {line["job"] for line in worker.log("job_done")}
    assert {"warm-contact-credits-cache"} <= done, worker.text()


async def test_cron_addresses_alone_keep_both_sides_in_step(service, portal, student):
    """Without any worker: pull, then push, each when called; nothing in between."""
    contact_id, hubspot_id = await known(service, student)
    await edit(portal, hubspot_id, sj_credits="12")
    cron = {"authorization": f"Bearer {service.environment['CRON_SECRET']}"}
    pulled = data_of(await service.http.get("/api/admin/cron/warm-contact-credits-cache", headers=cron))
    assert pulled["done"], pulled
    assert await is_credit(service, contact_id, "sj_credits", 12)
    exam = await make_mock_exam(service.db, days=33)
    booked = await book_seat(service, student, exam)
    for _ in range(6):
        told = data_of(await service.http.get("/api/admin/cron/batch-sync-hubspot", headers=cron))
        if told["done"] and await settled(service):
            break
        await asyncio.sleep(0.5)
    ((booking_id,),) = await service.run(
        "select hubspot_id from tallybook.bookings where id = %s", booked["id"]
    )
    assert await with_associations(portal, booking_id)
    assert (await record(portal, "contacts", hubspot_id))["properties"]["sj_credits"] == "11"


async def test_echoes_of_our_own_writes_are_dropped_once_their_source_is_known(
    service, portal, worker, student
):
    """The worker learns it from a stamp of its own; then HubSpot's events about our writes leave no hint."""

    async def learned():
        rows = await service.run(
            "select value ->> 'source_id' from tallybook.sync_state where name = 'own_source'"
        )
        return rows and rows[0][0]

    contact_id, hubspot_id = await known(service, student)
    exam = await make_mock_exam(service.db, days=34)
    await edit(portal, hubspot_id, sj_credits="5")
    await eventually(lambda: is_credit(service, contact_id, "sj_credits", 5))
    await book_seat(service, student, exam)
    await eventually(lambda: settled(service), within_s=60)
    source, _ = await eventually(learned, within_s=90)
    entry = (await record(portal, "contacts", hubspot_id))["history"]["tallybook_sync"][0]
    assert source == entry["sourceId"]
