"""The guard: a small process between us and PostgreSQL that ends PostgreSQL when we end, however we end.

It is run as a file by an isolated Python, so it imports the standard library only. Its input is a pipe whose
other end only the owner holds: kill -9 of the owner closes it as an orderly stop does. When the guard itself
is killed, Linux sends the server the signal it asked for at its start (PR_SET_PDEATHSIG).
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TypedDict

PR_SET_PDEATHSIG = 1
LOOK_AT_OWNER_EVERY_S = 1.0
IMMEDIATE_LIMIT_S = 10.0


class Plan(TypedDict):
    """What to run and how; `uid` None keeps the account, and the paths in `remove` are cleared at the end."""

    owner_pid: int
    argv: list[str]
    directory: str
    uid: int | None
    gid: int | None
    keep_fd: int
    fast_limit_s: float
    remove: list[str]


def main() -> int:
    """Runs the plan of the first argument and answers with the exit status a shell would report."""
    plan: Plan = json.loads(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w)
    asked_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: asked_to_stop.append(received))
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    guard_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        become(plan, guard_pid=guard_pid)
    # The owner may be gone already; the loop below then learns it from the closed input.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{pid}\n".encode())
    os.close(1)
    try:
        return watch(pid, wake_r, asked_to_stop, plan)
    finally:
        for path in plan["remove"]:
            remove(Path(path))


def become(plan: Plan, *, guard_pid: int) -> None:
    """Turns the forked child into the program of the plan; never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGCHLD,
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        # Entered while we may still be root: the parents of the directory can be closed to the account.
        os.chdir(plan["directory"])
        if plan["uid"] is not None and plan["gid"] is not None:
            os.setgroups([])
            os.setgid(plan["gid"])
            os.setuid(plan["uid"])
        if sys.platform == "linux":
            # After the change of account, which would clear it again.
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
            if os.getppid() != guard_pid:
                os._exit(1)
        os.umask(0o077)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        # The server and every process it starts hold the directory's lock until the last of them is gone.
        os.set_inheritable(plan["keep_fd"], True)
        os.execv(plan["argv"][0], plan["argv"])  # noqa: S606
    except BaseException as error:  # noqa: BLE001
        os.write(2, f"cannot start {plan['argv'][0]}: {error}\n".encode())
    finally:
        os._exit(127)


def watch(pid: int, wake_r: int, asked_to_stop: list[int], plan: Plan) -> int:
    """Waits for the child; once the owner is gone or asks, stops it fast, then at once, then by force."""
    inputs = [0, wake_r]
    steps = [
        (signal.SIGINT, plan["fast_limit_s"]),
        (signal.SIGQUIT, IMMEDIATE_LIMIT_S),
        (signal.SIGKILL, 1.0),
    ]
    next_step_at: float | None = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        # A fork of the owner may hold the pipe beyond the owner's death, so its pid is looked at as well.
        if next_step_at is None and (0 not in inputs or asked_to_stop or os.getppid() != plan["owner_pid"]):
            next_step_at = 0.0
        if next_step_at is not None and time.monotonic() >= next_step_at:
            number, limit_s = steps[0] if len(steps) == 1 else steps.pop(0)
            os.kill(pid, number)
            next_step_at = time.monotonic() + limit_s
        for readable in select.select(inputs, [], [], LOOK_AT_OWNER_EVERY_S)[0]:
            if not os.read(readable, 4096) and readable == 0:
                inputs.remove(0)


def remove(path: Path) -> None:
    """Removes a file or an empty directory if it is there."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
