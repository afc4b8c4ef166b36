"""The data directory of the embedded server: who uses it, what is in it, and making a new cluster in it.

DATA_DIR/lock             held by the server's processes as long as one of them lives; names its owner
DATA_DIR/postgresql.log   what the server says
DATA_DIR/pgdata/          the cluster, of the account PostgreSQL runs as
DATA_DIR/pgdata.new/      a cluster being made; renamed when it is whole
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tallybook.domain.errors import SetupError

POLL_S = 0.02
GOING_DOWN_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A data directory that this process holds the lock of, through `lock_fd`, until it is closed."""

    path: Path
    lock_fd: int

    @property
    def cluster(self) -> Path:
        """Where PostgreSQL's own files are."""
        return self.path / "pgdata"

    @property
    def new_cluster(self) -> Path:
        """Where a cluster is made before it gets its name."""
        return self.path / "pgdata.new"

    def major(self) -> int | None:
        """The major version of the cluster, None when there is none yet; SetupError when it is none."""
        if not self.cluster.exists():
            return None
        try:
            return int((self.cluster / "PG_VERSION").read_text())
        except (OSError, ValueError):
            raise SetupError(
                f"{self.cluster} is no PostgreSQL data directory: its PG_VERSION is missing or unreadable.",
                hint="Nothing was changed. Use another data directory, or move this one away.",
            ) from None

    def owner_uid(self) -> int | None:
        """The account the cluster belongs to, None when there is none yet."""
        return self.cluster.stat().st_uid if self.cluster.exists() else None

    def remember_owner(self) -> None:
        """Writes into the lock file who started the server, for the message to whoever finds it locked."""
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, json.dumps({"owner_pid": os.getpid()}).encode(), 0)


def open_directory(path: Path, progress: Callable[[str], None]) -> DataDirectory:
    """Makes the directory where needed and takes its lock.

    A server whose owner was killed is given time to finish; a live one is a SetupError that names its pid.
    """
    path = path.absolute()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SetupError(f"Cannot use {path} as data directory: {error.strerror}.") from error
    directory = DataDirectory(path=path, lock_fd=lock_fd)
    try:
        _take_lock(directory, progress)
        _drop_stale_pid_file(directory)
    except BaseException:
        os.close(lock_fd)
        raise
    directory.remember_owner()
    return directory


def _take_lock(directory: DataDirectory, progress: Callable[[str], None]) -> None:
    give_up_at = time.monotonic() + GOING_DOWN_LIMIT_S
    told = False
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(directory.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        owner_pid = _owner_pid(directory)
        server_pid = postmaster_pid(directory.cluster)
        in_use = owner_pid is not None and alive(owner_pid) and server_pid is not None and alive(server_pid)
        if in_use or time.monotonic() > give_up_at:
            raise _taken(directory, server_pid or owner_pid)
        if not told:
            progress("The previous server on this directory is still shutting down.")
            told = True
        time.sleep(POLL_S)


def _taken(directory: DataDirectory, pid: int | None) -> SetupError:
    return SetupError(
        f"Another PostgreSQL runs on {directory.path} (pid {pid or 'unknown'}).",
        hint="Stop the program that started it, or use another data directory.",
        pid=pid,
    )


def _owner_pid(directory: DataDirectory) -> int | None:
    try:
        return int(json.loads(os.pread(directory.lock_fd, 1000, 0))["owner_pid"])
    except (ValueError, KeyError, TypeError):
        return None


def _drop_stale_pid_file(directory: DataDirectory) -> None:
    """Removes a pid file whose number another program has by now, which PostgreSQL would take for a server.

    We hold the lock, so no server of ours is alive. One that was started by hand on our cluster still may be.
    """
    pid = postmaster_pid(directory.cluster)
    if pid is None or not alive(pid):
        return  # PostgreSQL deals with the file of a dead server itself, and looks for its orphans.
    if is_server_of(pid, directory.cluster):
        raise _taken(directory, pid)
    (directory.cluster / "postmaster.pid").unlink(missing_ok=True)


def postmaster_pid(cluster: Path) -> int | None:
    """The pid in the server's pid file, alive or not."""
    try:
        return int((cluster / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def is_ready(cluster: Path, pid: int) -> bool:
    """Whether the server with this pid has said that it accepts connections."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    with contextlib.suppress(OSError):
        # The state stands behind the name, which is in parentheses and may contain any character.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return True


def is_server_of(pid: int, cluster: Path) -> bool:
    """Whether the live process is a server on this cluster; in doubt yes, as two on one would destroy it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").samefile(cluster)
    named = ["ps", "-o", "comm=", "-p", str(pid)]
    name = subprocess.run(named, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    return not name or "postgres" in name
