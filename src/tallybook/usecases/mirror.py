"""What every use case of the mirror works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tallybook.domain.catalog import Catalog
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.client import HubSpotClient
from tallybook.postgres.pool import Database


@dataclass(frozen=True, slots=True)
class Mirror:
    """Both sides and the rules between them. `time_zone` is that of places the catalog does not know.

    `observe`: HubSpot is read and never written.
    """

    db: Database
    client: HubSpotClient
    catalog: Catalog
    time_zone: str
    observe: bool = False

    def crm_type(self, mirrored: MirroredType) -> str:
        """HubSpot's name of the object type."""
        return self.client.connection.object_type(mirrored)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What reading some records brought: how many were read and absorbed, and which ids remain.

    `again`: HubSpot's histories were late, or a record these depend on is missing; to be read again a little
    later. `missing`: HubSpot has no such record, archived ones included in `counts` under `archived`.
    `errors` has a text for each id that could not be taken. `absent` names the properties of balances that
    were asked for and not shown, not even empty: the portal has none of that name.
    """

    read: int = 0
    absorbed: int = 0
    again: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
