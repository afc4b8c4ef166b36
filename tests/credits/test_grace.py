"""Credits on trust: bounded, written down, settled exactly once; and the client's own rules."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Response

from credits.test_examples import left, payer
from tallybook.client import (
    BlockingTallybook,
    CreditsRefused,
    Grace,
    InsufficientCredits,
    NotReachable,
    Tallybook,
    requires_credits,
)

COSTS = {"audio_upload": 2, "premium_export": 15}


@pytest.fixture
async def tallybook(service):
    async with Tallybook(service.server.url, service.credits_key) as client:
        yield client


def grace(tmp_path, **most):
    return Grace(tmp_path / "grace.sqlite", most_credits=most, costs=COSTS)


async def test_trust_ends_at_its_bound_for_all_processes_together(tmp_path):
    two = [grace(tmp_path, audio_upload=7) for _ in range(2)]
    given = await asyncio.gather(
        *(asyncio.to_thread(two[n % 2].take, "email:a@b.c", "audio_upload") for n in range(20))
    )
    assert len([key for key in given if key]) == 3
    assert not two[0].take("email:a@b.c", "premium_export")


async def test_what_was_given_on_trust_is_settled_once(service, tallybook, tmp_path):
    email = await payer(service, 10)
    store = grace(tmp_path, audio_upload=100)
    for _ in range(3):
        assert store.take(f"email:{email}", "audio_upload")
    both = await asyncio.gather(store.settle(tallybook), grace(tmp_path).settle(tallybook))
    assert max(both) == 3
    assert (store.waiting(), await left(service, email)) == (0, (4, {}))
    assert await store.settle(tallybook) == 0
    assert await left(service, email) == (4, {})


async def test_a_debt_that_cannot_be_paid_stays_until_it_can(service, tallybook, tmp_path):
    email = await payer(service, 1)
    store = grace(tmp_path, audio_upload=100)
    assert store.take(f"email:{email}", "audio_upload")
    assert (await store.settle(tallybook), store.waiting()) == (0, 1)
    await tallybook.find_or_create(email)
    await service.run("select tallybook.grant_credits(%s, 'credits', 5, 'bought')", f"email:{email}")
    assert (await store.settle(tallybook), store.waiting()) == (1, 0)
    assert await left(service, email) == (4, {})


async def test_trust_is_not_given_without_a_known_price(tmp_path):
    store = Grace(tmp_path / "grace.sqlite", most_credits={"mining": 100}, costs=COSTS)
    assert not store.take("email:a@b.c", "mining")


async def test_a_block_that_raises_costs_nothing(service, tallybook):
    email = await payer(service, 10)
    with pytest.raises(KeyError):
        async with tallybook.paid(f"email:{email}", "audio_upload"):
            raise KeyError
    assert await left(service, email) == (10, {})
    async with tallybook.paid(f"email:{email}", "audio_upload") as hold:
        assert hold.held == {"credits": 2}
    assert await left(service, email) == (8, {})


async def test_a_block_that_is_cancelled_costs_nothing(service, tallybook):
    email = await payer(service, 10)
    begun = asyncio.Event()

    async def work():
        async with tallybook.paid(f"email:{email}", "audio_upload"):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await left(service, email) == (10, {})


async def test_programs_without_a_loop_can_do_the_same(service):
    email = await payer(service, 10)

    def script():
        with BlockingTallybook(service.server.url, service.credits_key) as tallybook:
            with tallybook.paid(f"email:{email}", "audio_upload"):
                pass
            charge = tallybook.charge(f"email:{email}", ["audio_upload"], key="one")
            assert tallybook.charge(f"email:{email}", ["audio_upload"], key="one") == charge
            tallybook.refund(charge.entry_ids[0])
            with pytest.raises(InsufficientCredits) as refused:
                tallybook.charge(f"email:{email}", "premium_export")
            assert refused.value.details["needed"] == {"credits": 15}
            with pytest.raises(CreditsRefused) as unknown:
                tallybook.charge("email:nobody@example.org", "audio_upload")
            assert unknown.value.code == "CONTACT_NOT_FOUND"

    await asyncio.to_thread(script)
    assert await left(service, email) == (8, {})


async def test_a_server_that_is_away_is_an_error_in_time_and_never_a_yes():
    async with Tallybook("http://127.0.0.1:9", "tb_x_y", deadline_s=0.5) as tallybook:
        with pytest.raises(NotReachable) as away:
            await tallybook.charge("email:a@b.c", "audio_upload")
    assert not away.value.outcome_unknown


async def test_a_captured_hold_whose_answer_was_lost_is_given_back(service, tallybook):
    email = await payer(service, 10)
    hold = await tallybook.hold(f"email:{email}", "audio_upload")
    await tallybook.capture(hold.id)
    assert await tallybook.give_back(hold.id)
    assert await left(service, email) == (10, {})


@pytest.fixture
def fastapi_app(service, tmp_path):
    """Handlers of both kinds, each on trust when Tallybook is away."""

    def make(url):
        async_client, plain_client = (
            kind(url, service.credits_key, deadline_s=0.3) for kind in (Tallybook, BlockingTallybook)
        )
        app = FastAPI()
        trust = {"contact": lambda user, **_: f"email:{user}", "grace": grace(tmp_path, audio_upload=100)}

        def work(outcome):
            if outcome == "raises":
                raise HTTPException(400, "broken")
            return Response("broken", 422) if outcome == "fails" else {"done": True}

        @app.post("/async/{outcome}")
        @requires_credits("audio_upload", client=async_client, **trust)
        async def wait(user: str, outcome: str) -> Any:
            return work(outcome)

        @app.post("/plain/{outcome}")
        @requires_credits("audio_upload", client=plain_client, **trust)
        def plain(user: str, outcome: str) -> Any:
            return work(outcome)

        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")

    return make


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_handlers_of_both_kinds_pay_for_success_alone(service, fastapi_app, kind):
    email = await payer(service, 3)
    async with fastapi_app(service.server.url) as http:
        for outcome, status in (("raises", 400), ("fails", 422), ("works", 200), ("works", 402)):
            answer = await http.post(f"/{kind}/{outcome}", params={"user": email})
            assert answer.status_code == status
    assert answer.json()["error"]["code"] == "INSUFFICIENT_CREDITS"
    assert await left(service, email) == (1, {})


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_work_that_failed_on_trust_is_not_settled(service, fastapi_app, tallybook, tmp_path, kind):
    email = await payer(service, 10)
    async with fastapi_app("http://127.0.0.1:9") as http:
        for outcome, status in (("raises", 400), ("fails", 422), ("works", 200)):
            answer = await http.post(f"/{kind}/{outcome}", params={"user": email})
            assert answer.status_code == status
    assert await grace(tmp_path).settle(tallybook) == 1
    assert await left(service, email) == (8, {})


async def test_one_who_is_gone_does_not_keep_others_from_settling(service, tallybook, tmp_path):
    email = await payer(service, 10)
    store = grace(tmp_path, audio_upload=100)
    assert store.take("email:gone@example.org", "audio_upload")
    with closing(sqlite3.connect(tmp_path / "grace.sqlite")) as file, file:
        file.execute("update uses set tried_at = '2026-01-01T00:00:00+00:00'")
    assert store.take(f"email:{email}", "audio_upload")
    assert (await store.settle(tallybook), store.waiting()) == (1, 1)
    assert await left(service, email) == (8, {})


async def test_a_database_that_went_away_leaves_the_outcome_unknown():
    async def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json={"success": False, "error": {"code": "DATABASE_UNAVAILABLE"}})

    async with Tallybook("http://credits.example", "tb_x_y", deadline_s=0.3) as tallybook:
        tallybook._http = httpx.AsyncClient(
            base_url="http://credits.example", transport=httpx.MockTransport(refuse)
        )
        with pytest.raises(NotReachable) as away:
            await tallybook.charge("email:a@b.c", "audio_upload")
    assert away.value.outcome_unknown


def test_a_fork_while_a_call_begins_leaves_a_client_that_works():
    script = """
import os, signal
from tallybook.client import BlockingTallybook, NotReachable
client = BlockingTallybook("http://127.0.0.1:9", "tb_x_y", deadline_s=0.2)
client._lock.acquire()
child = os.fork()
if child == 0:
    signal.alarm(5)
    try:
        client.costs()
    except NotReachable:
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=20
    )
    assert ran.stdout.strip() == "7", ran.stderr
