"""A running server, for what the documents tell people to run."""

from e2e.conftest import service, start_service  # noqa: F401
