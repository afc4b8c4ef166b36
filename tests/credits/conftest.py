"""A running server with keys for metered actions."""

from e2e.conftest import service, start_service  # noqa: F401
