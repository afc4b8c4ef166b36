"""Reads one contact again from HubSpot and merges what it says; local spends are never lost."""

from __future__ import annotations

from uuid import UUID

from tallybook.domain.catalog import Catalog
from tallybook.domain.contacts import ContactRefKind, parse_contact_ref
from tallybook.domain.errors import ContactNotFound, ValidationError
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.fields import contact_properties, parse_contact
from tallybook.postgres.pool import Database
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.grant_credits import find_contact

_DEADLINE_S = 30.0


async def refresh_contact(db: Database, client: HubSpotClient, catalog: Catalog, *, contact: str) -> UUID:
    """The contact's UUID after merging; one not stored yet is found by its HubSpot id or e-mail.

    Raises ContactNotFound, AmbiguousContact, CrmBusy, CrmUnavailable, SetupError.
    """
    key, id_property = await _key_of(db, contact)
    records = await client.batch_read(
        "contacts",
        [key],
        id_property=id_property,
        properties=contact_properties(catalog),
        kind=CallKind.MISS,
        deadline_s=_DEADLINE_S,
    )
    if not records:
        raise ContactNotFound("HubSpot has no such contact.")
    absorbed = await absorb_contacts(
        db, [parse_contact(record, catalog) for record in records], first_reason="crm_link"
    )
    if not absorbed:
        raise ValidationError("HubSpot's contact could not be stored: another one has its e-mail.")
    return next(iter(absorbed.values()))


async def _key_of(db: Database, contact: str) -> tuple[str, str | None]:
    """By what to ask HubSpot: record id, or the name of a unique property and its value."""
    ref = parse_contact_ref(contact)
    try:
        contact_id = await find_contact(db, contact)
    except ContactNotFound:
        if ref.kind is ContactRefKind.HUBSPOT_ID:
            return ref.value, None
        if ref.kind is ContactRefKind.EMAIL:
            return ref.value, "email"
        raise
    row = await db.fetch_one("contact_hubspot_id", {"contact_id": contact_id})
    if row is None or row[0] is None:
        raise ContactNotFound("This contact is not in HubSpot yet.")
    return str(row[0]), None
