"""A simulated portal over HTTP, clients that call it, and both sides together as the mirror's."""

import pytest

from e2e.conftest import start_service
from races.conftest import deadlocks, wide
from support.factories import CATALOG, TORONTO
from support.hints import Inbox
from support.portal import client, portal, simulator_url
from support.push_world import world
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.prepare_portal import prepare_portal

__all__ = ["client", "deadlocks", "portal", "simulator_url", "start_service", "wide", "world"]


@pytest.fixture
async def mirror(db, client):
    """The test's database and an empty portal that has Tallybook's properties."""
    await prepare_portal(client, CATALOG)
    return Mirror(db, client, CATALOG, TORONTO)


@pytest.fixture
async def inbox(owner, mirror):
    """What waits to be read again."""
    return Inbox(owner, mirror)
