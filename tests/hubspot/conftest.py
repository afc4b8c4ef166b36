"""A simulated portal over HTTP, and clients that call it."""

from support.portal import client, portal, simulator_url

__all__ = ["client", "portal", "simulator_url"]
