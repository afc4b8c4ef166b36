"""Sends a batch so that one bad record costs only itself: what is refused is halved until it is found."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tallybook.hubspot.write_results import Fault, Refusal, Unknown, WriteOutcome, Written, WrittenRecord
from tallybook.usecases.outbox import Claim, Planned

# HubSpot asks to wait at least two seconds for a record that is locked.
_LOCKED_S = 2.0
_LOCKED_TRIES = 2


@dataclass(slots=True)
class PartsSent:
    """What became of a batch. `stop` is what keeps the lane from going on; then the rest is `unsent`."""

    written: list[tuple[Planned, WrittenRecord]] = field(default_factory=list)
    refused: list[tuple[Planned, Refusal]] = field(default_factory=list)
    unknown: list[Planned] = field(default_factory=list)
    unsent: list[Planned] = field(default_factory=list)
    stop: Refusal | Unknown | None = None

    def add(self, other: PartsSent) -> None:
        """Adds what became of another batch of the same claim."""
        self.written += other.written
        self.refused += other.refused
        self.unknown += other.unknown
        self.unsent += other.unsent
        self.stop = self.stop or other.stop


async def send_in_parts(
    claim: Claim, items: Sequence[Planned], send: Callable[[Sequence[Planned]], Awaitable[WriteOutcome]]
) -> PartsSent:
    """Sends all items, at first together; what is sent again after a refusal is numbered and read anew."""
    sent = PartsSent()
    parts = [list(items)] if items else []
    locked = 0
    while parts:
        part = parts.pop()
        outcome = await send(part)
        if isinstance(outcome, Written):
            _account(sent, part, outcome)
            if sent.stop is not None:
                await _stop(claim, sent, [], parts)
                break
        elif isinstance(outcome, Unknown):
            sent.unknown += part
            sent.stop = outcome
            await _stop(claim, sent, [], parts)
            break
        elif not outcome.fault.is_of_one_record:
            sent.stop = outcome
            await _stop(claim, sent, part, parts)
            break
        elif outcome.fault is Fault.LOCKED and locked < _LOCKED_TRIES:
            locked += 1
            await asyncio.sleep(_LOCKED_S * (1 + random.random() / 4))  # noqa: S311 - spreads retries, no secret.
            parts += await _again(claim, [part])
        elif len(part) == 1:
            sent.refused.append((part[0], outcome))
        else:
            middle = len(part) // 2
            parts += await _again(claim, [part[middle:], part[:middle]])
    return sent


def _account(sent: PartsSent, part: Sequence[Planned], outcome: Written) -> None:
    for item in part:
        record, refusal = outcome.records.get(item.key), outcome.refusals.get(item.key)
        if record is not None:
            sent.written.append((item, record))
        elif refusal is None:
            sent.unknown.append(item)
        elif refusal.fault.is_of_one_record:
            sent.refused.append((item, refusal))
        else:
            # An unknown property, say: it would refuse every record that has a value for it.
            sent.unsent.append(item)
            sent.stop = refusal


async def _stop(
    claim: Claim, sent: PartsSent, refused: Sequence[Planned], left: Sequence[Sequence[Planned]]
) -> None:
    """Nothing of this was applied: what was refused, also for the lane's sake, and what is left."""
    sent.unsent += [item for part in (refused, *left) for item in part]
    await claim.refuse(sent.unsent)


async def _again(claim: Claim, parts: Sequence[Sequence[Planned]]) -> list[list[Planned]]:
    """The parts, prepared afresh after a refusal; what is to be done otherwise goes back to the outbox."""
    before = {item.id: item for part in parts for item in part}
    await claim.refuse(before.values())
    now = {item.id: item for item in await claim.prepare(before)}
    other = [item for item in now.values() if item.action != before[item.id].action]
    await claim.refuse(other)
    await claim.release(item.id for item in other)
    same = [[now[item.id] for item in part if item.id in now and now[item.id] not in other] for part in parts]
    return [part for part in same if part]
