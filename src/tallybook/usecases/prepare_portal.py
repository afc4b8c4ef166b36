"""Finds what a portal lacks for the mirror, and creates the properties that are Tallybook's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tallybook.domain.catalog import Catalog
from tallybook.domain.errors import CrmUnavailable
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.expected_properties import Expected, expected_properties, misfits
from tallybook.hubspot.records import Property

_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class MissingProperty:
    """A property of Tallybook's own that does not exist yet, and where and how it would be created."""

    of: MirroredType
    object_type: str
    wanted: Expected
    group: str

    def __str__(self) -> str:
        unique = ", unique" if self.wanted.is_unique else ""
        return f"{self.wanted.name} (text{unique}) of HubSpot's {self.of.value.replace('_', ' ')}s"


@dataclass(frozen=True, slots=True)
class PropertyProblem:
    """What only a person can put right, in HubSpot; `is_grave`: the mirror does not work until then."""

    of: MirroredType
    found: str
    to_do: str
    is_grave: bool


@dataclass(frozen=True, slots=True)
class PortalPlan:
    """What `prepare_portal` would create or has created, what a person has to do, and what was looked at."""

    to_create: tuple[MissingProperty, ...]
    problems: tuple[PropertyProblem, ...]
    looked_at: Mapping[MirroredType, int]


async def plan_portal(
    client: HubSpotClient,
    catalog: Catalog,
    *,
    types: Sequence[MirroredType] = tuple(MirroredType),
    kind: CallKind = CallKind.RECONCILE,
) -> PortalPlan:
    """Compares the portal's properties with what the mirror needs; changes nothing.

    Raises CrmBusy, CrmUnavailable, SetupError.
    """
    to_create: list[MissingProperty] = []
    problems: list[PropertyProblem] = []
    expected = expected_properties(catalog)
    for of in types:
        object_type = client.connection.object_type(of)
        known = await client.list_properties(object_type, kind=kind, deadline_s=_DEADLINE_S)
        missing, wrong = _compare(of, object_type, expected[of], known)
        to_create += missing
        problems += wrong
    return PortalPlan(tuple(to_create), tuple(problems), {of: len(expected[of]) for of in types})


async def prepare_portal(
    client: HubSpotClient, catalog: Catalog, *, kind: CallKind = CallKind.RECONCILE
) -> PortalPlan:
    """Creates our own properties where they are missing; doing it again, or twice at once, changes nothing.

    Gives the plan that was carried out. Raises CrmBusy, CrmUnavailable, SetupError.
    """
    plan = await plan_portal(client, catalog, kind=kind)
    for missing in plan.to_create:
        try:
            await client.create_property(
                missing.object_type,
                missing.wanted.definition(missing.group),
                kind=kind,
                deadline_s=_DEADLINE_S,
            )
        except CrmUnavailable as error:
            # It exists: somebody else was faster, or an answer of ours was lost.
            if error.details.get("status") != 409:
                raise
    return plan


def _compare(
    of: MirroredType, object_type: str, wanted: Sequence[Expected], known: Sequence[Property]
) -> tuple[list[MissingProperty], list[PropertyProblem]]:
    """What is missing of our own, and what is wrong otherwise, with one object type."""
    by_name = {each.name: each for each in known if not each.archived}
    missing: list[MissingProperty] = []
    problems: list[PropertyProblem] = []
    group = _group(wanted, by_name)
    for each in wanted:
        found = by_name.get(each.name)
        if found is not None:
            problems += [
                PropertyProblem(of, what, to_do, is_grave=each.is_essential)
                for what, to_do in misfits(each, found)
            ]
        elif each.is_own:
            missing.append(MissingProperty(of, object_type, each, group))
        else:
            problems.append(
                PropertyProblem(
                    of,
                    f"the property {each.name} is missing",
                    f"Create it in HubSpot, of the type {' or '.join(sorted(each.types))}.",
                    is_grave=each.is_essential,
                )
            )
    return missing, problems


def _group(wanted: Sequence[Expected], by_name: Mapping[str, Property]) -> str:
    """A group that exists: that of a property people know, so that ours stand beside it."""
    theirs = [by_name[each.name] for each in wanted if each.name in by_name]
    for found in (*reversed(theirs), *by_name.values()):
        if found.group_name:
            return found.group_name
    return ""
