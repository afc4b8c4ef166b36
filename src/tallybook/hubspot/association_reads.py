"""Which records are associated with which: a batch read of records does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.connection import associations_path
from tallybook.hubspot.records import Paging

ASSOCIATIONS_BATCH_SIZE = 1000
REQUIRES_ATTENDANCE = "requires attendance at"
"""The label that leads from a session to those that must be attended first."""


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    label: str | None = None


class _Other(msgspec.Struct, frozen=True, rename="camel"):
    # A number in HubSpot's documents, a text in its answers.
    to_object_id: str | int
    association_types: tuple[_Kind, ...] = ()


class _From(msgspec.Struct, frozen=True):
    id: str


class _Associated(msgspec.Struct, frozen=True, rename={"source": "from"}):
    source: _From
    to: tuple[_Other, ...] = ()
    paging: Paging | None = None


class _Answer(msgspec.Struct, frozen=True):
    results: tuple[_Associated, ...] = ()


async def read_associations(
    client: HubSpotClient,
    from_type: str,
    ids: Sequence[str],
    to_type: str,
    *,
    kind: CallKind,
    deadline_s: float,
    label: str | None = None,
) -> dict[str, list[str]]:
    """The ids each record is associated with, a thousand records a call; with a label only those so labelled.

    A record without any, or that does not exist, has an empty list.
    """
    found: dict[str, list[str]] = {record_id: [] for record_id in ids}
    inputs: list[dict[str, Any]] = [{"id": record_id} for record_id in found]
    while inputs:
        answer = await client.read_batch(
            associations_path(from_type, to_type, "batch/read"),
            _Answer,
            operation="read associations",
            kind=kind,
            deadline_s=deadline_s,
            body={"inputs": inputs[:ASSOCIATIONS_BATCH_SIZE]},
        )
        inputs = inputs[ASSOCIATIONS_BATCH_SIZE:]
        for each in answer.results:
            found.setdefault(each.source.id, []).extend(
                str(other.to_object_id) for other in each.to if _is_labelled(other, label)
            )
            if each.paging is not None and each.paging.next is not None:
                inputs.append({"id": each.source.id, "after": each.paging.next.after})
    return found


def _is_labelled(other: _Other, label: str | None) -> bool:
    return label is None or any((one.label or "").casefold() == label for one in other.association_types)
