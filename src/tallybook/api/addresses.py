"""The address a request comes from, as far as it can be trusted."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope

_UNKNOWN = "unknown"
_V6_NETWORK_BITS = 64


def client_address(scope: Scope, *, trusted_proxies: int) -> str:
    """The client's address: the socket's, or the one that the outermost of our own proxies saw.

    Each proxy appends the address it was called from, so with n proxies the n-th entry from the right is the
    last one that somebody we trust has written. Everything left of it is the client's own claim.
    """
    client = scope.get("client")
    socket_address = client[0] if client else _UNKNOWN
    if trusted_proxies == 0:
        return _normal(socket_address) or _UNKNOWN
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    hops = [hop.strip() for hop in forwarded.decode("latin-1").split(",") if hop.strip()]
    hop = hops[max(-trusted_proxies, -len(hops))] if hops else socket_address
    return _normal(hop) or _normal(socket_address) or _UNKNOWN


@lru_cache(maxsize=4096)
def _normal(text: str) -> str | None:
    """The address as one spelling; of IPv6 the /64 that one household or attacker holds as a whole."""
    text = text.partition("]")[0].lstrip("[")
    if text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    host_bits = 128 - _V6_NETWORK_BITS
    return f"{IPv6Address(int(address) >> host_bits << host_bits)}/{_V6_NETWORK_BITS}"


def is_loopback(scope: Scope) -> bool:
    """Whether the request was made on this machine and by nobody behind a proxy on it."""
    client = scope.get("client")
    if client is None or any(name in _FORWARDING for name, _ in scope["headers"]):
        return False
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


_FORWARDING = frozenset((b"x-forwarded-for", b"x-real-ip", b"forwarded"))
