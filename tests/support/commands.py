"""Runs the command as a user would: as a process, in a folder of its own."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from tallybook.cli.run import run

COMMAND = Path(sys.executable).with_name("tallybook")
SECRET_KEY = "a secret key of the tests, long enough to be one"


@dataclass
class CommandLine:
    """The `tallybook` command with an environment of its own."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self):
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        own = {"HOME": self.folder, "XDG_DATA_HOME": self.folder, "XDG_STATE_HOME": self.folder}
        return {**kept, **{name: str(path) for name, path in own.items()}, **self.settings}

    def __call__(self, *arguments, code=0, stdin="", **settings):
        """Runs a command to its end and demands this exit code; settings of None are left out."""
        given = {**self.environment, **settings}
        done = subprocess.run(
            [COMMAND, *arguments],
            env={name: value for name, value in given.items() if value is not None},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments, **settings):
        """What a command prints with `--json`."""
        return json.loads(self(*arguments, "--json", **settings).stdout)

    def error(self, *arguments, code=1, stdin="", **settings):
        """The lines a command that fails says: error and hint.

        Runs in this process, in a thread without an event loop: there are many ways to fail, and starting a
        process for each would take longer than everything else.
        """
        given = {**self.environment, **settings}
        environment = {name: value for name, value in given.items() if value is not None}
        said, failed = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, environment, clear=True),
            patch("sys.stdin", io.StringIO(stdin)),
            chdir(self.folder),
            redirect_stdout(said),
            redirect_stderr(failed),
            ThreadPoolExecutor(1) as thread,
        ):
            assert thread.submit(run, arguments).result() == code, (said.getvalue(), failed.getvalue())
        lines = failed.getvalue().splitlines()
        assert lines[0].startswith("error: ")
        assert len(lines) <= 2
        return lines

    @contextmanager
    def running(self, *arguments, **settings):
        """A command that runs until it is told to stop."""
        process = subprocess.Popen(
            [COMMAND, *arguments],
            env={**self.environment, **settings},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


@contextmanager
def served(tallybook, *arguments, **settings):
    """A running server; gives its process and its address once it is ready."""
    with tallybook.running("serve", "--port", "0", *arguments, **settings) as process:
        line = process.stdout.readline()
        assert line, process.communicate()
        url = json.loads(line)["url"]
        wait_until_ready(url)
        yield process, url


def wait_until_ready(url, *, within_s=20):
    ends_at = time.monotonic() + within_s
    while fetch(f"{url}/readyz")[0] != 200:
        assert time.monotonic() < ends_at, "the server did not become ready"
        time.sleep(0.02)


def fetch(url, *, method="GET", body=None, headers=None):
    """Status and body of one request; 0 when nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""
