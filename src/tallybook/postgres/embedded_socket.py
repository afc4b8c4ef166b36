"""The private directory of the embedded server's socket: short, closed to others, and gone afterwards."""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Final

from tallybook.postgres.embedded_binaries import Account
from tallybook.postgres.embedded_directory import alive

PORT: Final = 5432
PREFIX: Final = "tallybook-pg-"
# TMPDIR can be too long for a socket's path, which ends at about 100 bytes.
PARENT: Final = Path("/tmp")  # noqa: S108


def make_socket_dir(account: Account | None) -> Path:
    """Makes a directory only the server's account (and root) can enter, and clears those of dead servers."""
    _clear_stale(os.geteuid() if account is None else account.uid)
    made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=PARENT))
    if account is not None:
        try:
            os.chown(made, account.uid, account.gid)
        except BaseException:
            shutil.rmtree(made)
            raise
    return made


def socket_paths(socket_dir: Path) -> list[Path]:
    """What there is to remove, in this order: the socket, its lock file, the directory."""
    return [socket_dir / f".s.PGSQL.{PORT}", socket_dir / f".s.PGSQL.{PORT}.lock", socket_dir]


def clear_socket_dir(socket_dir: Path) -> None:
    """Removes the directory with the two files PostgreSQL makes in it, and nothing else."""
    *files, folder = socket_paths(socket_dir)
    with contextlib.suppress(OSError):
        for path in files:
            path.unlink(missing_ok=True)
        folder.rmdir()


def _clear_stale(uid: int) -> None:
    """Clears what servers of this account left behind when they were killed together with their guard."""
    for folder in PARENT.glob(f"{PREFIX}*"):
        owner_pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            found = folder.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == uid and owner_pid.isdigit()
            if ours and not alive(int(owner_pid)) and not _answers(folder):
                clear_socket_dir(folder)


def _answers(socket_dir: Path) -> bool:
    """Whether a server listens there: one in another container has no pid that we could see."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(socket_paths(socket_dir)[0]))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True
