"""What a web framework costs around one credit check: requests/s and CPU, as ratios to a bare handler.

The frameworks live in a temporary virtual environment, for they are no dependencies of ours. All servers are
ready at once and loaded in turn, in another order each round, so what else the machine does hits all alike.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psycopg
from contenders_names import NAMES

from tallybook.postgres.embedded import EmbeddedServer

HERE = Path(__file__).parent
PACKAGES = (
    "starlette>=1",
    "fastapi",
    "blacksheep",
    "litestar",
    "msgspec",
    "psycopg[binary]",
    "prometheus-client",
    "uvicorn",
    "uvloop",
    "httptools",
)
STUDENTS = """
create table students (
    id uuid primary key default gen_random_uuid(),
    student_id text not null, email text not null, name text not null,
    specific_credits int not null, shared_credits int not null, unique (student_id, email)
);
insert into students (student_id, email, name, specific_credits, shared_credits)
select (1000000 + n)::text, 's' || n || '@example.org', 'Student ' || n, n % 3 + 1, n % 2
from generate_series(0, 9999) n;
analyze students;
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        python = make_environment(temporary / "venv")
        database = stack.enter_context(EmbeddedServer.start(temporary / "data", settings={"fsync": "off"}))
        with psycopg.connect(database.uri(), autocommit=True) as connection:
            connection.execute(STUDENTS)
        servers = {name: stack.enter_context(Server(python, name, database.uri())) for name in NAMES}
        for server in servers.values():
            server.load(python, 1.0)
        rounds = []
        for number in range(options.rounds):
            order = NAMES[number % len(NAMES) :] + NAMES[: number % len(NAMES)]
            rounds.append({name: servers[name].load(python, options.seconds) for name in order})
        report(rounds, versions(python), database.binaries.major)
    print(f"Command: .venv/bin/python benchmarks/frameworks/measure.py {' '.join(sys.argv[1:])}".rstrip())


def make_environment(path):
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(path)], check=True)
    python = str(path / "bin" / "python")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *PACKAGES], check=True)
    return python


def versions(python):
    names = [name.split("[")[0].split(">")[0] for name in PACKAGES]
    asked = f"import importlib.metadata as m; print(*(n + ' ' + m.version(n) for n in {names!r}), sep=', ')"
    return subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()


class Server:
    def __init__(self, python, name, database_url):
        self.process = subprocess.Popen(
            [python, str(HERE / "serve.py"), name],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "BENCHMARK_DATABASE_URL": database_url},
        )

    def __enter__(self):
        self.port = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_error):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, python, seconds):
        """Requests/s and CPU of the server in us per request, under load for so long."""
        before = self.cpu_s()
        ran = subprocess.run(
            [python, str(HERE / "load.py"), self.port, str(seconds)], check=True, stdout=subprocess.PIPE
        )
        said = json.loads(ran.stdout)
        return said["answered"] / said["seconds"], (self.cpu_s() - before) * 1e6 / said["answered"]


def report(rounds, package_versions, postgresql):
    print("| server | requests/s | of bare | range of rounds | CPU us per request | CPU of bare |")
    print("|---|---|---|---|---|---|")
    for name in NAMES:
        rates = [each[name][0] for each in rounds]
        ratios = [each[name][0] / each["bare"][0] for each in rounds]
        cpu_ratio = statistics.median(each[name][1] / each["bare"][1] for each in rounds)
        cpu_us = statistics.median(each[name][1] for each in rounds)
        print(
            f"| {name} | {statistics.median(rates):,.0f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f}-{max(ratios):.2f} | {cpu_us:.0f} | {cpu_ratio:.2f} |"
        )
    processor = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    print(
        f"\nMedians of {len(rounds)} interleaved rounds. {os.cpu_count()} cores, {processor}; "
        f"Python {platform.python_version()}, PostgreSQL {postgresql}; {package_versions}."
    )


if __name__ == "__main__":
    main()
