"""One service per test module, with the usual settings or the module's own."""

from contextlib import AsyncExitStack

import pytest

from e2e.service import serving


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
