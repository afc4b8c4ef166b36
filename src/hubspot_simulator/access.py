"""What the portal as a whole may refuse: a token without a scope, a locked account, one that is moving."""

from math import ceil

from hubspot_simulator.definitions import CONTACTS
from hubspot_simulator.errors import ApiError, locked, migrating, missing_scopes
from hubspot_simulator.portal import Portal

# POST reads too, in batches and searches.
_READS = {("batch", "read"), ("search",)}


def demand(portal: Portal, method: str, parts: tuple[str, ...]) -> None:
    """Raise what the state of the account refuses this call for: 477, 403 or 423."""
    settings = portal.settings
    left_s = settings.migrating_until_s - portal.now_s()
    if left_s > 0:
        raise migrating(ceil(left_s))
    if settings.missing_scopes:
        scope = needed_scope(portal, method, parts)
        if scope in settings.missing_scopes:
            raise missing_scopes([scope])
    if settings.locked and _writes(method, parts):
        raise locked()


def needed_scope(portal: Portal, method: str, parts: tuple[str, ...]) -> str | None:
    """The scope a call needs; None for account information and for what the portal has not got."""
    verb = "write" if _writes(method, parts) else "read"
    family = parts[0] if parts else ""
    if family == "schemas":
        return f"crm.schemas.custom.{verb}"
    if family not in {"objects", "associations", "pairs", "properties", "rules"} or len(parts) < 2:
        return None
    try:
        kind = "contacts" if portal.store(parts[1]).kind.type_id == CONTACTS else "custom"
    except ApiError:
        return None
    subject = "schemas" if family in {"properties", "rules"} else "objects"
    return f"crm.{subject}.{kind}.{verb}"


def _writes(method: str, parts: tuple[str, ...]) -> bool:
    return method != "GET" and not (parts[-2:] in _READS or parts[-1:] in _READS)


def known_scopes() -> set[str]:
    """All scopes that a call can need."""
    kinds = ("objects.contacts", "objects.custom", "schemas.contacts", "schemas.custom")
    return {f"crm.{kind}.{verb}" for kind in kinds for verb in ("read", "write")}
