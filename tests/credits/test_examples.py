"""The example applications, run for real against a running Tallybook."""

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from e2e.service import Program
from support.factories import make_local_contact

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
START = {
    "flask_uploads": ("-m", "flask", "--app", str(EXAMPLES / "flask_uploads" / "app"), "run", "--port", "0"),
    "fastapi_uploads": (
        *("-m", "uvicorn", "--app-dir", str(EXAMPLES / "fastapi_uploads"), "app:app", "--port", "0"),
    ),
}


class Example(Program):
    """One of the applications, on a port of its own."""

    async def ready(self):
        self.url = (await self.said(r"(?:Running on|running on) (http://127\.0\.0\.1:\d+)"))[1]
        return self


@asynccontextmanager
async def running(name, service, directory, **environment):
    given = {
        "TALLYBOOK_URL": service.server.url,
        "TALLYBOOK_KEY": service.credits_key,
        "PYTHONUNBUFFERED": "1",
    }
    example = Example(
        [sys.executable, *START[name]], directory=directory, name=name, environment=given | environment
    )
    try:
        await example.ready()
        async with httpx.AsyncClient(
            base_url=example.url, timeout=60, trust_env=False, limits=httpx.Limits(max_connections=100)
        ) as http:
            yield example, http
    finally:
        example.stop()


@pytest.fixture(params=START, scope="module")
async def example(request, service, tmp_path_factory):
    async with running(request.param, service, tmp_path_factory.mktemp("example")) as (_, http):
        yield http


async def payer(service, credits):  # noqa: A002 - the word of the catalog
    return (await make_local_contact(service.db, credits={"credits": credits})).email


async def upload(http, email, content=b"some sound"):
    return await http.post("/uploads", files={"file": ("talk.mp3", content)}, headers={"X-User": email})


async def left(service, email):
    """What can be spent and what is set aside."""
    answer = await service.http.get(
        f"/api/contacts/email:{email}/credits", headers={"authorization": f"Bearer {service.credits_key}"}
    )
    data = answer.json()["data"]
    return data["balances"]["credits"], data["held"]


async def test_with_credits_for_seven_exactly_seven_of_a_hundred_uploads_get_through(service, example):
    email = await payer(service, 7 * 2 + 1)
    answers = await asyncio.gather(*(upload(example, email) for _ in range(100)))
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(201), statuses.count(402)) == (7, 93), set(statuses)
    refused = next(answer for answer in answers if answer.status_code == 402).json()
    assert refused["error"]["code"] == "INSUFFICIENT_CREDITS"
    assert refused["error"]["details"]["needed"] == {"credits": 2}
    assert await left(service, email) == (1, {})


@pytest.mark.parametrize(("content", "status"), [(b"broken", 500), (None, 400)])
async def test_an_upload_that_fails_costs_nothing(service, example, content, status):
    email = await payer(service, 10)
    files = {"file": ("talk.mp3", content)} if content else {"other": ("x", b"")}
    answer = await example.post("/uploads", files=files, headers={"X-User": email})
    assert answer.status_code in {status, 422}
    assert await left(service, email) == (10, {})


async def test_prices_come_from_the_catalog(example):
    assert (await example.get("/prices")).json()["audio_upload"] == 2


@pytest.mark.parametrize("name", START)
async def test_when_tallybook_is_away_the_work_is_refused(service, tmp_path, name):
    async with running(name, service, tmp_path, TALLYBOOK_URL="http://127.0.0.1:9") as (_, http):
        answer = await upload(http, "ada@example.org")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "CREDITS_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
