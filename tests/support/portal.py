"""A simulated portal over HTTP, and clients that call it: fixtures for every folder that needs them."""

import asyncio
import sys
from dataclasses import dataclass

import httpx
import pytest

from tallybook.hubspot.budget import UnlimitedBudget
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.connection import HubSpotConnection


@dataclass(frozen=True)
class Portal:
    """The simulator's address and its back door."""

    url: str
    door: httpx.AsyncClient

    async def post(self, name, **body):
        answer = await self.door.post(f"/_simulator/{name}", json=body)
        answer.raise_for_status()
        return answer.json()

    async def stats(self):
        return (await self.door.get("/_simulator/stats")).json()

    def client(self, *, budget=None, observer=None, token="pat-test", **connection):
        return HubSpotClient(
            HubSpotConnection(self.url, token, **connection),
            budget=budget or UnlimitedBudget(),
            observer=observer,
        )


@pytest.fixture(scope="session")
async def simulator_url():
    """One simulator process for all tests of a folder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hubspot_simulator", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        yield line.decode().split()[-1]
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
async def portal(simulator_url):
    """An empty portal with its default settings."""
    async with httpx.AsyncClient(base_url=simulator_url, trust_env=False) as door:
        fresh = Portal(simulator_url, door)
        await fresh.post("reset")
        defaults = {
            "limits": "professional",
            "latency_ms": 0,
            "search_lag_s": 0,
            "token": None,
            "portal_id": 8_123_456,
        }
        await fresh.post("settings", **defaults, limit_calls=100_000, limit_search_per_s=1000)
        yield fresh


@pytest.fixture
async def client(portal):
    """A client without a budget of its own."""
    async with portal.client() as found:
        yield found
