"""The inbox and the marks of polling, as the tests of the mirror look at them."""

import json
from dataclasses import dataclass

from tallybook.domain.mirror import MirroredType
from tallybook.jobs.pull_changes import pull_until
from tallybook.usecases.pull_changes import claim_hints, follow_hints


@dataclass
class Inbox:
    """What waits to be read again."""

    owner: object
    mirror: object

    async def rows(self, columns="hubspot_id"):
        cursor = await self.owner.execute(f"select {columns} from tallybook.inbox order by id")
        return await cursor.fetchall()

    async def count(self):
        return len(await self.rows())

    async def ask(self, *hubspot_ids, mirrored=MirroredType.CONTACT, after_s=0):
        await self.owner.execute(
            "select tallybook.ask_to_read(%s, %s, %s)", (mirrored, list(hubspot_ids), after_s)
        )

    async def event(self, hubspot_id, *, mirrored=MirroredType.CONTACT, what="propertyChange", details=None):
        await self.owner.execute(
            "insert into tallybook.inbox (object_type, hubspot_id, subscription_type, details)"
            " values (%s, %s, %s, %s)",
            (mirrored, hubspot_id, f"{mirrored}.{what}", json.dumps(details or {})),
        )

    async def all_due(self):
        """As if the time had come for all that wait."""
        await self.owner.execute("update tallybook.inbox set next_attempt_at = clock_timestamp()")

    async def follow(self, *types):
        """What one claimed lease became; None when nothing is due."""
        lease = await claim_hints(self.mirror.db, types or tuple(MirroredType))
        return None if lease is None else await follow_hints(self.mirror, lease)

    async def drain(self, *, max_s=120):
        return await pull_until(self.mirror, max_s=max_s)
