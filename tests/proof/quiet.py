"""A small stage for single scenarios: a few contacts, a worker that is stopped at a known step and killed."""

import asyncio
import time
from contextlib import asynccontextmanager

from e2e.service import Simulator
from proof.portal import Portal
from proof.settle import settled
from proof.stage import CLIENT_SECRET, Stage

PATIENCE_S = 30.0


class Quiet(Stage):
    """A stage where nothing happens by itself."""

    portal: Portal

    async def until(self, question, *values, within_s=PATIENCE_S):
        """Waits until a query answers with a row; gives it."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            rows = await self.run(question, *values)
            if rows:
                return rows[0]
            await asyncio.sleep(0.02)
        raise AssertionError(f"never true: {question} {values}")

    async def until_fault_is_taken(self, within_s=PATIENCE_S):
        """Waits until no armed fault waits any more: the call it was for is being made."""
        until = time.monotonic() + within_s
        while await self.portal.faults_waiting():
            assert time.monotonic() < until, "nobody made the call the fault waits for"
            await asyncio.sleep(0.02)

    async def until_there(self, kind, hubspot_id, name, value, within_s=PATIENCE_S):
        """Waits until HubSpot shows this value."""
        until = time.monotonic() + within_s
        while (await self.portal.record(kind, hubspot_id))["properties"].get(name) != value:
            assert time.monotonic() < until, f"{name} of {hubspot_id} never was {value}"
            await asyncio.sleep(0.02)

    def kill_workers(self):
        """kill -9 of all, and nobody takes their place."""
        while self.workers:
            self.workers.pop().kill()

    async def settle(self, within_s=60.0):
        """Until nothing waits and everything was absorbed."""
        await self.portal.mend()
        return await settled(self, self.portal, within_s=within_s)

    async def contact(self, number):
        """(our id, HubSpot's id) of the portal's contact with this number."""
        ((contact_id, hubspot_id),) = await self.run(
            "select id, hubspot_id from tallybook.contacts where email = %s", f"student{number}@example.com"
        )
        return contact_id, hubspot_id

    async def grant(self, contact_id, credit_type, number):
        """Credits granted by staff here."""
        await self.run(
            "select tallybook.grant_credits(%s::text, %s, %s, 'a scenario')", contact_id, credit_type, number
        )

    async def balance(self, contact_id, credit_type):
        ((balance,),) = await self.run(
            "select balance from tallybook.credit_balances where contact_id = %s and credit_type = %s",
            contact_id,
            credit_type,
        )
        return balance

    async def shown(self, hubspot_id, name, kind="contact"):
        """What HubSpot shows."""
        return (await self.portal.record(kind, hubspot_id))["properties"].get(name)

    async def entries(self, contact_id, credit_type):
        """(delta, reason) of the ledger, oldest first."""
        return await self.run(
            "select delta, reason from tallybook.credit_entries where contact_id = %s and credit_type = %s"
            " order by seq",
            contact_id,
            credit_type,
        )


@asynccontextmanager
async def quiet_stage(
    postgres_server, directory, *, contacts=30, workers=0, server=True, sessions=(), **settings
):
    """A stage on a database of its own with everything imported; workers are started by whoever wants one."""
    name = await postgres_server.create_database()
    simulator = Simulator(directory, "--contacts", str(contacts))
    stage = None
    try:
        await simulator.ready()
        stage = Quiet(directory, postgres_server.uri(name), simulator, workers, settings=settings)
        stage.portal = Portal.at(simulator.url)
        await stage.begin(server=server, sessions=sessions)
        if server:
            await stage.portal.door("webhooks", url=stage.webhook_url, secret=CLIENT_SECRET)
        yield stage
    finally:
        if stage is not None:
            await stage.close()
            await stage.portal.close()
        await simulator.close()
        await postgres_server.drop_database(name)
