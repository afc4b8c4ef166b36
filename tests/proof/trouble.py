"""What goes wrong meanwhile: answers lost, late, refused; processes killed; HubSpot gone for a while."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from e2e.service import CRON_SECRET
from proof.portal import Portal
from proof.stage import Stage

WRITES = "/crm/.*/(batch/(create|update|upsert)|associations.*|associate.*)$"
CRON = ("sync-supabase", "batch-sync-hubspot", "reconcile", "warm-contact-credits-cache")
READS = "/crm/.*/(batch/read|search)$|/crm/objects/[^/]+/[^/]+$"
# The client gives up after 15 seconds; a lease ends after 60.
FAULTS = {
    "done, but 502": {"path": WRITES, "status": 502, "apply_first": True},
    "done, but cut": {"path": WRITES, "cut": True, "apply_first": True},
    "done, answered after the timeout": {"path": WRITES, "apply_first": True, "delay_ms": 17_000},
    "not done, 502": {"path": WRITES, "status": 502},
    "not done, cut": {"path": WRITES, "cut": True},
    "not done, 503 after a while": {"path": WRITES, "status": 503, "delay_ms": 2_000},
    "done 3 s after a 504": {"path": WRITES, "status": 504, "late_apply_ms": 3_000},
    "done 12 s after a cut": {"path": WRITES, "cut": True, "late_apply_ms": 12_000},
    "done 25 s later, after the next write": {"path": WRITES, "status": 504, "late_apply_ms": 25_000},
    "write locked": {"path": WRITES, "status": 423},
    "read 500": {"path": READS, "status": 500},
    "read cut": {"path": READS, "cut": True},
    "read slow": {"path": READS, "delay_ms": 4_000},
    "read after the timeout": {"path": READS, "delay_ms": 17_000},
    "429": {"path": "/crm/", "status": 429, "headers": {"retry-after": "1"}},
}


@dataclass
class Trouble:
    """Makes things go wrong at random until it is cancelled. Times are means, in seconds; 0: never."""

    stage: Stage
    portal: Portal
    rng: random.Random
    fault_every_s: float = 1.0
    kill_worker_every_s: float = 12.0
    kill_server_every_s: float = 45.0
    lose_leases_every_s: float = 20.0
    cron_every_s: float = 15.0
    kill_postgres_after: tuple[float, ...] = ()
    names: tuple[str, ...] = tuple(FAULTS)
    done: Counter = field(default_factory=Counter)

    async def make(self):
        """All kinds at once."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self.fault_every_s, self._fault))
            group.create_task(self._again(self.kill_worker_every_s, self._kill_worker))
            group.create_task(self._again(self.kill_server_every_s, self._kill_server))
            group.create_task(self._again(self.lose_leases_every_s, self._lose_leases))
            group.create_task(self._again(self.cron_every_s, self._call_cron))
            group.create_task(self._kill_postgres())
            group.create_task(self._revive())

    async def _again(self, every_s, act):
        while every_s:
            await asyncio.sleep(self.rng.expovariate(1 / every_s))
            await act()

    async def _fault(self):
        if len(await self.portal.faults_waiting()) < 4:
            name = self.rng.choice(self.names)
            await self.portal.door("faults", **FAULTS[name], times=self.rng.choice((1, 1, 2)))
            self.done[name] += 1

    async def _call_cron(self):
        """A scheduler that nobody told of the workers: the same work beside them."""
        name = self.rng.choice(CRON)
        with suppress(httpx.TransportError):
            answer = await self.stage.http.get(
                f"/api/admin/cron/{name}?max_s=5", headers={"authorization": f"Bearer {CRON_SECRET}"}
            )
            self.done[f"cron {name} {answer.status_code}"] += 1

    async def _lose_leases(self):
        """As if whoever holds them had been stopped for a minute: they go on, and others begin."""
        await self.stage.end_leases()
        self.done["leases lost"] += 1

    async def _kill_worker(self):
        if self.stage.workers:
            self.stage.kill_worker(self.rng.randrange(len(self.stage.workers)))
            self.done["worker killed"] += 1

    async def _kill_server(self):
        await self.stage.kill_server()
        self.done["server killed"] += 1

    async def _kill_postgres(self):
        for after_s in self.kill_postgres_after:
            await asyncio.sleep(after_s)
            await self.stage.kill_postgres()
            self.done["PostgreSQL killed"] += 1

    async def _revive(self):
        while True:
            await asyncio.sleep(1)
            self.done["worker ended by itself"] += self.stage.revive()

    async def hubspot_away(self, seconds):
        """HubSpot answers nothing at all for so long."""
        await self.portal.door("faults", path="^/(crm|account|crm-object)", status=503, times=10**9)
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.portal.mend()
        self.done["HubSpot away"] += 1
