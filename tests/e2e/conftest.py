"""One service per test module, with the usual settings or the module's own."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID

import pytest

from e2e.service import SECRET_KEY, serving
from tallybook.api.staff_tokens import StaffTokens
from tallybook.domain.staff import StaffRole
from tallybook.usecases.create_staff import create_staff


@pytest.fixture(scope="module")
async def start_service(postgres_server, tmp_path_factory):
    """Starts services on databases of their own: `await start_service(CRON_SECRET=None)`."""
    async with AsyncExitStack() as stack:

        async def start(**given):
            name = await postgres_server.create_database()
            stack.push_async_callback(postgres_server.drop_database, name)
            directory = tmp_path_factory.mktemp("service")
            return await stack.enter_async_context(serving(postgres_server.uri(name), directory, **given))

        yield start


@pytest.fixture(scope="module")
async def service(start_service):
    """A server, a simulator and a database with the usual settings."""
    return await start_service()


@pytest.fixture(scope="module")
async def staff(service):
    """The headers of an administrator; signing in would meet the limit that some files' guesses reach."""
    account = {"email": "ada@example.com", "password": "a long password of the staff"}
    stored = await create_staff(service.db, **account, name=None, role=StaffRole.ADMIN, actor="cli:test")
    tokens = StaffTokens(SECRET_KEY, previous=None, clock=lambda: datetime.now(UTC))
    return {"authorization": f"Bearer {tokens.issue(staff_id=UUID(stored.id), epoch=1)[0]}"}
