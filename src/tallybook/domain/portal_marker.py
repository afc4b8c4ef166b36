"""The marker kept in HubSpot: which database a portal belongs to, and how far the two have come together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

_WRITTEN = re.compile(r"\bTallybook ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) epoch ([0-9]{1,15})\b")


@dataclass(frozen=True, slots=True)
class PortalMarker:
    """What the description of a property of ours says; `epoch` only rises."""

    database_id: UUID
    epoch: int

    @property
    def text(self) -> str:
        """The description that carries the marker."""
        return (
            f"Tallybook {self.database_id} epoch {self.epoch}. Written by Tallybook with each change; please"
            " leave both this text and the values alone: they tell its own changes from people's."
        )

    @classmethod
    def parse(cls, description: str | None) -> PortalMarker | None:
        """The marker in a description; None when there is none, or somebody has changed it."""
        found = _WRITTEN.search(description or "")
        return cls(UUID(found[1]), int(found[2])) if found else None
