"""Killed between hold and capture: no credit is lost, none stays stuck, nobody gets work for free."""

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from credits.test_examples import Example, left, payer

HERE = Path(__file__).resolve().parent


@asynccontextmanager
async def working(service, directory, email):
    """An application in the middle of paid work: the program, its request, and what lets it finish."""
    example = Example(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "waiting_app:app", "--port", "0"],
        directory=directory,
        name="waiting",
        environment={
            "TALLYBOOK_URL": service.server.url,
            "TALLYBOOK_KEY": service.credits_key,
            "SIGNS": str(directory),
        },
    )
    try:
        await example.ready()
        async with httpx.AsyncClient(base_url=example.url, timeout=60, trust_env=False) as http:
            request = asyncio.create_task(http.post("/work", params={"user": email}))
            async with asyncio.timeout(30):
                while not (directory / "working").exists():  # noqa: ASYNC110 - another process makes it
                    await asyncio.sleep(0.01)
            yield example, request, directory / "finish"
            await asyncio.gather(request, return_exceptions=True)
    finally:
        example.stop()


async def settled(service, email):
    """What can be spent once the holds of five seconds are over."""
    async with asyncio.timeout(30):
        while True:
            spendable, held = await left(service, email)
            if not held:
                return spendable
            await asyncio.sleep(0.1)


async def test_an_application_killed_in_the_middle_leaves_no_stuck_credit(service, tmp_path):
    email = await payer(service, 10)
    async with working(service, tmp_path, email) as (example, _, _):
        assert await left(service, email) == (8, {"credits": 2})
        example.kill()
    assert await settled(service, email) == 10


async def test_tallybook_killed_in_the_middle_costs_nothing_and_gives_nothing_away(service, tmp_path):
    email = await payer(service, 10)
    async with working(service, tmp_path, email) as (_, request, finish):
        service.server.kill()
        finish.touch()
        answer = await request
    assert answer.status_code == 503
    await service.restart()
    assert await settled(service, email) == 10
