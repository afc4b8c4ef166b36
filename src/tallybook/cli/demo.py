"""`tallybook demo`: the whole product on 127.0.0.1, with a database and a HubSpot of its own.

Everything is a child of this process or runs in it: Ctrl-C, SIGTERM and kill -9 leave nothing running.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import uvicorn
import uvloop
from rich.console import Console

from tallybook.api.logs import configure_logs
from tallybook.cli.demo_children import simulator, worker
from tallybook.cli.demo_filling import Filled, fill
from tallybook.cli.demo_page import Addresses, introduction
from tallybook.cli.places import demo_data_dir, demo_state_file
from tallybook.domain.errors import SetupError
from tallybook.postgres.catalog_tables import apply_catalog
from tallybook.postgres.embedded import EmbeddedServer
from tallybook.postgres.migrate import ensure_database, migrate
from tallybook.settings import load_settings
from tallybook.usecases.prepare_portal import prepare_portal
from tallybook.wiring import create_application, opened

_HOST = "127.0.0.1"
_DATABASE = "tallybook"
_IGNORED = ("DATABASE_URL", "DATABASE_MIGRATION_URL", "HS_PRIVATE_APP_TOKEN", "HUBSPOT_BASE_URL",
            "HUBSPOT_CLIENT_SECRET", "TALLYBOOK_PUBLIC_URL")  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoSecrets:
    """What this demo made up at its first start, kept so that keys and sign-ins survive a restart."""

    secret_key: str
    cron_secret: str
    api_key_secret: str
    staff_password: str
    hubspot_client_secret: str


def run_demo(*, port: int, data_dir: Path | None, contacts: int, ready_file: Path | None) -> None:
    """Starts everything, says how to use it, and returns when it was told to stop. Raises SetupError."""
    console = Console(highlight=False, soft_wrap=True)
    # uvicorn hands the signal on once it has stopped serving; then our own children follow.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        _start(stack, console, port=port, data_dir=data_dir, contacts=contacts, ready_file=ready_file)
    console.print("[dim]Stopped. The next start finds the data again.[/dim]")


def _start(
    stack: ExitStack,
    console: Console,
    *,
    port: int,
    data_dir: Path | None,
    contacts: int,
    ready_file: Path | None,
) -> None:
    directory = (data_dir or demo_data_dir()).absolute()
    ignored = [name for name in _IGNORED if os.environ.get(name)]
    if ignored:
        console.print(f"[dim]Not used here, although set: {', '.join(ignored)}.[/dim]")
    listener = _listen(port)
    stack.callback(listener.close)
    directory.mkdir(parents=True, exist_ok=True)
    kept = _secrets(directory / "secrets.json")
    console.print(f"[dim]Data in {directory}[/dim]")
    server = stack.enter_context(
        EmbeddedServer.start(
            directory / "postgresql",
            on_progress=lambda line: console.print(f"[dim]PostgreSQL: {line}[/dim]"),
        )
    )
    simulator_url = stack.enter_context(simulator(directory, contacts, console))
    url = f"http://{_HOST}:{listener.getsockname()[1]}"
    # Also at the usual place, wherever the data lie: there `tallybook loadtest` looks for the key.
    state_files = list(dict.fromkeys([demo_state_file(), demo_state_file(directory)]))
    state_files += [ready_file] if ready_file else []
    for each in state_files:
        stack.callback(each.unlink, missing_ok=True)
    demo = _Demo(
        kept=kept,
        addresses=Addresses(url=url, simulator_url=simulator_url, database_url=server.uri(_DATABASE)),
        listener=listener,
        state_files=tuple(state_files),
        console=console,
    )
    uvloop.run(demo.run(server_uri=server.uri(), directory=directory))


@dataclass(frozen=True, slots=True)
class _Demo:
    """The part that runs in this process: filling, then serving until told to stop."""

    kept: DemoSecrets
    addresses: Addresses
    listener: socket.socket
    state_files: tuple[Path, ...]
    console: Console

    async def run(self, *, server_uri: str, directory: Path) -> None:
        await ensure_database(server_uri, _DATABASE)
        await migrate(self.addresses.database_url)
        environment = _environment(self.kept, self.addresses)
        settings = load_settings(environment, env_file=None)
        with (directory / "server.log").open("ab", buffering=0) as log:
            configure_logs(log)
            async with opened(settings) as parts:
                await apply_catalog(self.addresses.database_url, parts.catalog)
                await prepare_portal(parts.hubspot, parts.catalog)
                filled = await fill(parts, self.kept, console=self.console)
                await self._send_webhooks()
                config = uvicorn.Config(
                    create_application(parts),
                    http="httptools",
                    loop="none",
                    access_log=False,
                    log_config=None,
                    lifespan="on",
                    timeout_graceful_shutdown=5,
                )
                with worker(directory, environment):
                    await _Server(config, lambda: self._say_ready(filled)).serve(sockets=[self.listener])

    async def _send_webhooks(self) -> None:
        """Tells the simulator where to send what happens in it, as people would in HubSpot's settings."""
        wanted = {
            "url": f"{self.addresses.url}/api/webhooks/hubspot",
            "secret": self.kept.hubspot_client_secret,
        }
        async with httpx.AsyncClient(base_url=self.addresses.simulator_url, trust_env=False) as door:
            (await door.post("/_simulator/webhooks", json=wanted)).raise_for_status()

    def _say_ready(self, filled: Filled) -> None:
        state = json.dumps(_state(self.addresses, filled, self.kept), indent=2) + "\n"
        for each in self.state_files:
            _write_private(each, state)
        self.console.print(introduction(self.addresses, filled, self.kept.staff_password), markup=False)


class _Server(uvicorn.Server):
    """uvicorn that says when it can be called."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def _state(addresses: Addresses, filled: Filled, kept: DemoSecrets) -> Mapping[str, object]:
    return {
        "url": addresses.url,
        "simulator_url": addresses.simulator_url,
        "database_url": addresses.database_url,
        "cron_secret": kept.cron_secret,
        "api_key": filled.api_key,
        "student": {"student_id": filled.student_id, "email": filled.student_email},
        "staff": {"email": filled.staff_email, "password": kept.staff_password},
    }


def _environment(kept: DemoSecrets, addresses: Addresses) -> dict[str, str]:
    """The settings of server and worker."""
    return {
        "DATABASE_URL": addresses.database_url,
        "HS_PRIVATE_APP_TOKEN": "demo",
        "HUBSPOT_BASE_URL": addresses.simulator_url,
        "HUBSPOT_CLIENT_SECRET": kept.hubspot_client_secret,
        "TALLYBOOK_PUBLIC_URL": addresses.url,
        "TALLYBOOK_SECRET_KEY": kept.secret_key,
        "CRON_SECRET": kept.cron_secret,
        "TALLYBOOK_LOGIN_CODE": "none",
        "TALLYBOOK_DOCS": "public",
    }


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise SetupError(
            f"port {port} on {_HOST} is taken", hint="Choose another: tallybook demo --port 8001"
        ) from error
    return listener


def _secrets(file: Path) -> DemoSecrets:
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if kept.keys() == set(DemoSecrets.__slots__):
        return DemoSecrets(**kept)
    made = DemoSecrets(
        secret_key=secrets.token_urlsafe(48),
        cron_secret=secrets.token_urlsafe(24),
        api_key_secret=secrets.token_urlsafe(32),
        staff_password=secrets.token_urlsafe(12),
        hubspot_client_secret=secrets.token_urlsafe(24),
    )
    # One of an earlier release had fewer.
    made = replace(made, **kept)
    _write_private(file, json.dumps({name: getattr(made, name) for name in made.__slots__}))
    return made


def _write_private(file: Path, text: str) -> None:
    """Writes the file so that nobody else can read it, and nobody sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.{os.getpid()}")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    half.replace(file)
