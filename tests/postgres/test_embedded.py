"""The embedded PostgreSQL: it starts anywhere we may run, keeps its data, and never outlives its owner."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tallybook.domain.errors import SetupError
from tallybook.postgres.embedded import EmbeddedServer
from tallybook.postgres.embedded_binaries import (
    Account,
    run_as,
)
from tallybook.postgres.embedded_directory import alive
from tallybook.postgres.embedded_socket import PARENT, PREFIX

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB"}
NOBODY_UID = 65534
IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root can drop to another account")
on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux signals the child of a killed parent"
)

OWNER = """
import json, signal, sys
from pathlib import Path
from tallybook.postgres.embedded import EmbeddedServer
server = EmbeddedServer.start(Path(sys.argv[1]), settings=json.loads(sys.argv[2]))
print(json.dumps({"server": server.pid, "guard": server.guard_pid, "uri": server.uri(),
                  "socket_dir": str(server.socket_dir)}), flush=True)
signal.pause()
"""


def start(data_dir: Path, **settings: str) -> EmbeddedServer:
    return EmbeddedServer.start(data_dir, settings={**FAST, **settings})


def ask(uri: str, statement: str) -> Any:
    with psycopg.connect(uri, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


def run(uri: str, statement: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(statement.encode())


def processes_of(server_pid: int) -> set[int]:
    """The server's first process and the processes it started."""
    table = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [tuple(int(number) for number in line.split()) for line in table.splitlines()]
    return {server_pid} | {pid for pid, parent in pairs if parent == server_pid}


def wait_until(condition: Callable[[], bool], *, what: str, limit_s: float = 20.0) -> None:
    give_up_at = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {limit_s} s: {what}"
        time.sleep(0.02)


def wait_until_gone(pids: set[int]) -> None:
    wait_until(lambda: not any(alive(pid) for pid in pids), what=f"the end of {pids}")


def socket_dirs() -> set[Path]:
    return {path for path in PARENT.glob(f"{PREFIX}*") if not path.name.startswith(f"{PREFIX}0-")}


@contextmanager
def owner_process(
    data_dir: Path, *, python: str = sys.executable, **popen: Any
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Another process that owns a server, and what it said about it."""
    owner = subprocess.Popen(
        [python, "-c", OWNER, str(data_dir), json.dumps(FAST)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **popen,
    )
    said: dict[str, Any] = {}
    try:
        assert owner.stdout is not None
        with owner.stdout:
            said.update(json.loads(owner.stdout.readline()))
            yield owner, said
    finally:
        owner.kill()
        owner.wait()
        wait_until_gone({said[name] for name in ("server", "guard") if name in said})


def test_a_second_start_finds_the_data_of_the_first(tmp_path):
    """Demo data is still there tomorrow, and an orderly stop leaves no process and no socket."""
    with start(tmp_path) as server:
        run(server.uri(), "create table kept as select 42 as answer")
        pids, socket_dir = processes_of(server.pid), server.socket_dir
        assert len(pids) > 3
    assert not any(alive(pid) for pid in pids)
    assert not socket_dir.exists()
    with start(tmp_path) as server:
        assert ask(server.uri(), "select answer from kept") == 42


def test_a_second_stop_does_nothing(tmp_path):
    """A context manager around an explicit stop is fine."""
    with start(tmp_path) as server:
        server.stop()
        assert not server.is_running()


def test_text_is_utf8_and_sorts_by_code_point_on_every_machine(tmp_path):
    """A list sorted here is sorted alike in production, and lower() knows more than ASCII."""
    with start(tmp_path) as server:
        assert ask(server.uri(), "show server_encoding") == "UTF8"
        assert ask(server.uri(), "select 'a' > 'B'") is True
        if server.binaries.major >= 17:
            assert ask(server.uri(), "select lower('É')") == "é"


def test_the_server_listens_on_no_network_and_only_its_owner_reaches_its_socket(tmp_path):
    """Trust without a password is safe only where nobody else gets to."""
    with start(tmp_path, listen_addresses="*") as server:
        assert ask(server.uri(), "show listen_addresses") == ""
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert server.socket_dir.stat().st_uid == (NOBODY_UID if IS_ROOT else os.geteuid())


def test_settings_of_the_caller_go_before_the_defaults(tmp_path):
    """A test that wants 300 connections gets them."""
    with start(tmp_path, max_connections="37") as server:
        assert ask(server.uri(), "show max_connections") == "37"
        assert ask(server.uri(), "show timezone") == "UTC"


def test_the_environment_does_not_steer_the_server(tmp_path, monkeypatch):
    """A PGPORT in somebody's profile moves neither the server nor its clients."""
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    with start(tmp_path) as server:
        assert ask(server.uri(), "show port") == "5432"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_owner(tmp_path, number):
    """Whatever ends the owner ends the server, takes its socket away, and leaves the data usable."""
    with owner_process(tmp_path, stderr=subprocess.DEVNULL) as (owner, said):
        run(said["uri"], "create table kept as select 42 as answer")
        pids = processes_of(said["server"]) | {said["guard"]}
        owner.send_signal(number)
        wait_until_gone(pids)
        assert not Path(said["socket_dir"]).exists()
    with start(tmp_path) as server:
        assert ask(server.uri(), "select answer from kept") == 42


@on_linux
def test_no_process_outlives_its_guard(tmp_path):
    """kill -9 of the guard ends the server as well, and the owner can start it again."""
    with start(tmp_path) as server:
        pids = processes_of(server.pid)
        os.kill(server.guard_pid, signal.SIGKILL)
        wait_until_gone(pids)
        socket_dir = server.socket_dir
    assert not socket_dir.exists()
    with start(tmp_path) as server:
        assert ask(server.uri(), "select 1") == 1


@on_linux
def test_what_a_killed_owner_and_guard_leave_behind_is_cleared_by_the_next_start(tmp_path):
    """Killed together they cannot clear the socket's directory; the next start does, sparing those in use."""
    with start(tmp_path / "other") as other:
        with owner_process(tmp_path / "data") as (owner, said):
            pids = processes_of(said["server"])
            os.kill(said["guard"], signal.SIGSTOP)
            owner.kill()
            owner.wait()
            os.kill(said["guard"], signal.SIGKILL)
            wait_until_gone(pids)
            assert Path(said["socket_dir"]).exists()
        with start(tmp_path / "data") as server:
            assert not Path(said["socket_dir"]).exists()
            assert ask(server.uri(), "select 1") == 1
        assert ask(other.uri(), "select 1") == 1


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path):
    """The server stands in another process group, so that the owner can finish its requests first."""
    with start(tmp_path) as server:
        assert os.getpgid(server.pid) == server.pid
        assert os.getsid(server.pid) != os.getsid(0)


def test_a_directory_in_use_is_refused_with_the_pid_of_its_server(tmp_path):
    """Two servers on one cluster would destroy it; the first goes on unharmed."""
    with start(tmp_path) as server:
        with pytest.raises(SetupError, match=rf"pid {server.pid}\)") as refused:
            start(tmp_path)
        assert refused.value.hint
        assert ask(server.uri(), "select 1") == 1


def test_a_server_started_by_hand_on_our_cluster_is_seen(tmp_path):
    """The lock is ours alone; the pid file shows the others."""
    with start(tmp_path) as server:
        (tmp_path / "lock").unlink()
        with pytest.raises(SetupError, match=rf"pid {server.pid}\)"):
            start(tmp_path)


def test_a_start_right_after_a_kill_waits_for_the_old_server_to_end(tmp_path):
    """A restart by a supervisor is not refused because the old server still writes its last pages."""
    progress: list[str] = []
    with owner_process(tmp_path) as (owner, said):
        # A stopped guard cannot end the server, so the old one is certainly there when the new one comes.
        os.kill(said["guard"], signal.SIGSTOP)
        owner.kill()
        owner.wait()

        def on_progress(line: str) -> None:
            progress.append(line)
            with suppress(ProcessLookupError):
                os.kill(said["guard"], signal.SIGCONT)

        with EmbeddedServer.start(tmp_path, settings=FAST, on_progress=on_progress) as server:
            assert ask(server.uri(), "select 1") == 1
    assert "still shutting down" in progress[0]


def test_a_crashed_server_recovers_at_the_next_start(tmp_path):
    """After kill -9 of PostgreSQL itself, with its pid file left, nothing committed is missing."""
    with EmbeddedServer.start(tmp_path, settings={"shared_buffers": "16MB"}) as server:
        run(server.uri(), "create table kept as select generate_series(1, 1000)")
        pids = processes_of(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        wait_until_gone(pids)
    assert (tmp_path / "pgdata" / "postmaster.pid").exists()
    with start(tmp_path) as server:
        assert ask(server.uri(), "select count(*) from kept") == 1000


def test_a_pid_file_whose_number_another_program_has_by_now_is_no_obstacle(tmp_path):
    """After a reboot the old pid may be anybody's."""
    start(tmp_path).stop()
    (tmp_path / "pgdata" / "postmaster.pid").write_text(f"{os.getpid()}\n/proc/self/cwd\n1\n5432\n\n\n\n\n")
    with start(tmp_path) as server:
        assert ask(server.uri(), "select 1") == 1


def test_an_interrupted_first_start_leaves_no_half_made_cluster(tmp_path):
    """What `initdb` had made so far is thrown away, as it has no name yet."""
    (tmp_path / "pgdata.new" / "base").mkdir(parents=True)
    (tmp_path / "pgdata.new" / "PG_VERSION").write_text("18")
    with start(tmp_path) as server:
        assert ask(server.uri(), "select 1") == 1
    assert not (tmp_path / "pgdata.new").exists()


@pytest.mark.parametrize("name", ["with a space", "quote'd", "x" * 150])
def test_a_data_directory_may_have_any_name(tmp_path, name):
    """A socket's path may have about 100 bytes, so it is not made below the data."""
    with start(tmp_path / name) as server:
        assert ask(server.uri(), "select 1") == 1


def test_a_uri_carries_names_with_special_characters(tmp_path):
    """Database and role are quoted as URIs want it."""
    with start(tmp_path) as server:
        run(server.uri(), 'create database "a/b c"')
        run(server.uri(), 'create role "r@x" login')
        assert ask(server.uri("a/b c", "r@x"), "select current_database() || current_user") == "a/b cr@x"


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path):
    """The end of the log stands in the error, and the directory is free for the next try."""
    before = socket_dirs()
    with pytest.raises(SetupError, match="shared_buffers"):
        start(tmp_path, shared_buffers="a lot")
    assert not {path for path in socket_dirs() - before if f"-{os.getpid()}-" in path.name}
    with start(tmp_path) as server:
        assert ask(server.uri(), "select 1") == 1


def test_data_of_a_version_without_programs_is_refused_and_not_touched(tmp_path):
    """An update never starts a new empty cluster in place of the old data."""
    cluster = tmp_path / "pgdata"
    cluster.mkdir()
    (cluster / "PG_VERSION").write_text("12\n")
    with pytest.raises(SetupError, match="PostgreSQL 12"):
        start(tmp_path)
    assert [path.name for path in cluster.iterdir()] == ["PG_VERSION"]


def test_a_directory_that_is_no_cluster_is_refused(tmp_path):
    """Somebody's files are not ours to overwrite."""
    (tmp_path / "pgdata").mkdir()
    (tmp_path / "pgdata" / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="PG_VERSION"):
        start(tmp_path)
    assert (tmp_path / "pgdata" / "thesis.txt").read_text() == "years of work"


@as_root
@on_linux
def test_root_may_keep_its_data_where_no_other_account_can_go(tmp_path):
    """PostgreSQL runs as another account on data below a closed directory, whose rights stay as they are."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with start(closed / "data") as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == NOBODY_UID
        assert ask(server.uri(), "select count(*) from pg_class") > 0
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert closed.stat().st_uid == 0


@pytest.fixture
def open_parent() -> Iterator[Path]:
    """A directory every account can enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@as_root
def test_an_ordinary_user_runs_the_server_too_and_root_can_go_on_with_the_data(open_parent):
    """Without root nothing is dropped; data made so stays its owner's when root uses it."""
    without_root = owner_process_without_root()
    os.chown(open_parent, NOBODY_UID, NOBODY_UID)
    with owner_process(open_parent / "data", **without_root) as (owner, said):
        run(said["uri"], "create table kept as select 42 as answer")
        pids = processes_of(said["server"]) | {said["guard"]}
        owner.kill()
        wait_until_gone(pids)
    with start(open_parent / "data") as server:
        assert ask(server.uri(), "select answer from kept") == 42
    with owner_process(open_parent / "data", **without_root) as (_owner, said):
        assert ask(said["uri"], "select answer from kept") == 42


def owner_process_without_root() -> dict[str, Any]:
    """How to run an owner as an ordinary user: with this Python, or the system's when ours is root's own."""
    account = Account(uid=NOBODY_UID, gid=NOBODY_UID)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for python in (sys.executable, "/usr/bin/python3"):
        told = ["/usr/bin/env", f"PYTHONPATH={environment['PYTHONPATH']}", python, "-c"]
        if run_as(account, [*told, "import tallybook.postgres.embedded"]) is not None:
            drop = {"user": account.uid, "group": account.gid, "extra_groups": []}
            return {"python": python, "env": environment, "cwd": "/", **drop}
    pytest.skip("this installation lies where an ordinary user cannot read it")
