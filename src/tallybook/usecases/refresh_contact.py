"""Reads one contact again from HubSpot and merges what it says; local spends are never lost."""

from __future__ import annotations

from uuid import UUID

from tallybook.domain.contacts import ContactRefKind, parse_contact_ref
from tallybook.domain.errors import AmbiguousContact, ContactNotFound, CrmBusy, ValidationError
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.connection import CONTACTS
from tallybook.usecases.grant_credits import find_contact
from tallybook.usecases.guard_mirror import PortalGuard
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.pull_contacts import pull_contacts

_DEADLINE_S = 30.0


async def refresh_contact(mirror: Mirror, portal: PortalGuard, *, contact: str) -> UUID:
    """The contact's UUID after merging; one not stored yet is found by its HubSpot id, e-mail or student ID.

    Raises ContactNotFound, AmbiguousContact, CrmBusy (also when HubSpot's histories are late),
    CrmUnavailable, SetupError (also when the token opens a portal that is not this database's).
    """
    await portal.demand()
    key, id_property = await _key_of(mirror, contact)
    if id_property is not None:
        records = await mirror.client.batch_read(
            CONTACTS,
            [key],
            id_property=id_property,
            properties=[id_property],
            kind=CallKind.MISS,
            deadline_s=_DEADLINE_S,
        )
        if not records:
            raise ContactNotFound("HubSpot has no such contact.")
        key = records[0].id
    pulled = await pull_contacts(
        mirror, [key], kind=CallKind.MISS, deadline_s=_DEADLINE_S, students_only=False
    )
    if pulled.missing:
        raise ContactNotFound("HubSpot has no such contact.")
    if pulled.again:
        raise CrmBusy
    try:
        return await find_contact(mirror.db, key)
    except ContactNotFound as error:
        raise ValidationError(
            "HubSpot's contact could not be stored: another one has its e-mail; both are read again."
        ) from error


async def _key_of(mirror: Mirror, contact: str) -> tuple[str, str | None]:
    """By what to ask HubSpot: record id, or the name of a unique property and its value."""
    ref = parse_contact_ref(contact)
    try:
        contact_id = await find_contact(mirror.db, contact)
    except ContactNotFound:
        if ref.kind is ContactRefKind.HUBSPOT_ID:
            return ref.value, None
        if ref.kind is ContactRefKind.EMAIL:
            return ref.value, "email"
        if ref.kind is ContactRefKind.STUDENT_ID:
            return await _by_student_id(mirror, ref.value), None
        raise
    row = await mirror.db.fetch_one("contact_hubspot_id", {"contact_id": contact_id})
    if row is None or row[0] is None:
        raise ContactNotFound("This contact is not in HubSpot yet.")
    return str(row[0]), None


async def _by_student_id(mirror: Mirror, student_id: str) -> str:
    """The only record with this student ID; HubSpot's search may not have heard of the newest ones."""
    page = await mirror.client.search(
        CONTACTS,
        kind=CallKind.MISS,
        deadline_s=_DEADLINE_S,
        filters=[{"propertyName": "student_id", "operator": "EQ", "value": student_id}],
        limit=2,
    )
    if not page.results:
        raise ContactNotFound("HubSpot has no such contact.")
    if len(page.results) > 1:
        raise AmbiguousContact
    return page.results[0].id
