"""What the metered actions share: who pays, what for, and what a database that does not know answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallybook.domain.errors import CrmBusy, ValidationError
from tallybook.postgres.answers import Answer, StudentNotStored
from tallybook.postgres.pool import Database

LARGEST_QUANTITY = 1_000_000
LONGEST_METADATA_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class ActionUse:
    """A metered action of the catalog, `quantity` times."""

    action: str
    quantity: int = 1


def actions_json(actions: Sequence[ActionUse]) -> str:
    """The actions as the deciding functions take them."""
    return json.dumps([{"action": each.action, "quantity": each.quantity} for each in actions])


def metadata_json(metadata: Mapping[str, Any] | None) -> str | None:
    """What the caller wants to find again beside its entry. Raises ValidationError when it is too much."""
    if metadata is None:
        return None
    text = json.dumps(metadata, ensure_ascii=False)
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST_METADATA_BYTES:
        raise ValidationError(field="metadata", problem=f"must have at most {LONGEST_METADATA_BYTES} bytes")
    if "\\u0000" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationError(field="metadata", problem="contains characters that cannot be stored")
    return text


async def ask_about_credits(db: Database, query: str, params: Mapping[str, Any]) -> Answer:
    """The answer of a deciding function for another program, which is never asked from HubSpot.

    Raises what the function refuses, and CrmBusy while a mirrored balance has not been read.
    """
    try:
        return await db.answer(query, params)
    except StudentNotStored as error:
        raise CrmBusy("HubSpot has not told this balance yet.") from error
