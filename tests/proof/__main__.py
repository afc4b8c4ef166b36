"""`./dev prove`: random edits on both sides under faults and kills, then every number compared."""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from e2e.service import Simulator
from proof.breaking import BROKEN
from proof.chances import CHANCES
from proof.play import Plan, play
from proof.report import print_result, save_evidence
from proof.stage import CommandFailed, OwnPostgres, Stage
from tallybook.domain.catalog import default_catalog
from tallybook.postgres.catalog_tables import apply_catalog
from tallybook.postgres.migrate import ensure_database, migrate

DATABASE = "tallybook"


def parse(arguments):
    parser = argparse.ArgumentParser("./dev prove", description=__doc__)
    parser.add_argument("--edits", type=int, default=10_000, help="how many edits both sides accept in all")
    parser.add_argument("--contacts", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--workers", type=int, default=2, help="`tallybook worker` processes")
    parser.add_argument("--rate", type=float, default=25.0, help="edits a second at most")
    parser.add_argument(
        "--aim", type=float, default=0.5, help="how often the contact just being pushed is edited"
    )
    parser.add_argument("--latency-ms", type=int, default=250, help="of each call to HubSpot")
    parser.add_argument(
        "--skew-ms", type=int, default=0, help="how far apart HubSpot puts the times of one request"
    )
    parser.add_argument("--calm", action="store_true", help="no faults, no kills")
    parser.add_argument("--faults-every", type=float, default=1.0, metavar="S", help="mean; 0: none")
    parser.add_argument(
        "--kills-every", type=float, default=12.0, metavar="S", help="of a worker, mean; 0: none"
    )
    parser.add_argument(
        "--away", type=float, default=0.0, metavar="S", help="HubSpot gone for so long under load"
    )
    parser.add_argument("--settle", type=float, default=600.0, metavar="S", help="how long settling may take")
    parser.add_argument("--only", nargs="+", choices=tuple(CHANCES), default=tuple(CHANCES), metavar="EDIT",
                        help=f"these kinds of edits only, of: {', '.join(CHANCES)}")  # fmt: skip
    parser.add_argument("--broken", choices=tuple(BROKEN), help="with a merge broken on purpose: has to fail")
    parser.add_argument("--keep", type=Path, help="a folder for logs and the list of all edits")
    return parser.parse_args(arguments)


def plan_of(given):
    calm = given.calm
    return Plan(
        edits=given.edits,
        contacts=given.contacts,
        sessions=given.sessions,
        seed=given.seed,
        per_s=given.rate,
        aim=given.aim,
        latency_ms=given.latency_ms,
        stamp_skew_ms=given.skew_ms,
        fault_every_s=0.0 if calm else given.faults_every,
        kill_worker_every_s=0.0 if calm else given.kills_every,
        kill_server_every_s=0.0 if calm else given.kills_every * 4,
        lose_leases_every_s=0.0 if calm else given.kills_every * 2,
        cron_every_s=0.0 if calm else 15.0,
        kill_postgres_after=() if calm or not given.kills_every else (given.edits / given.rate / 3,),
        away_s=given.away,
        settle_s=given.settle,
        only=tuple(given.only),
        broken=given.broken,
    )


async def prove(given, directory):
    plan = plan_of(given)
    say = lambda line: print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)  # noqa: E731
    async with AsyncExitStack() as stack:
        postgres = await asyncio.to_thread(OwnPostgres, directory / "postgresql", DATABASE)
        stack.callback(postgres.stop)
        await ensure_database(postgres.uri("postgres"), DATABASE)
        await migrate(postgres.uri())
        await apply_catalog(postgres.uri(), default_catalog())
        simulator = Simulator(directory, "--contacts", str(plan.contacts), "--seed", str(plan.seed))
        stack.push_async_callback(simulator.close)
        await simulator.ready()
        stage = Stage(directory, postgres.uri(), simulator, given.workers, postgres)
        stack.push_async_callback(stage.close)
        log = stack.enter_context((directory / "edits.jsonl").open("w"))
        say(f"seed {plan.seed}, everything in {directory}")
        result = await play(stage, plan, say=say, log=log)
        try:
            result.verified = await stage.command("verify")
            result.mirrored = await stage.command("verify", "--mirror")
        except CommandFailed as failed:
            result.audit.find(str(failed))
        print_result(result, plan, sys.argv[1:])
        if not result.clean:
            await save_evidence(stage, result, directory)
        return 0 if result.clean else 1


def own_directory(keep):
    """The folder for everything; one that exists already keeps its permissions."""
    if keep is not None and keep.is_dir():
        return keep
    if keep is None:
        made = Path(tempfile.mkdtemp(prefix="tallybook-proof-"))
    else:
        made = keep
        made.mkdir(parents=True)
    # The account PostgreSQL runs as has to pass through.
    made.chmod(0o755)
    return made


def main(arguments=None):
    given = parse(arguments)
    directory = own_directory(given.keep)
    code = 1
    try:
        code = asyncio.run(prove(given, directory.absolute()))
    finally:
        if code == 0 and given.keep is None:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            print(f"Everything is in {directory}")
    return code


if __name__ == "__main__":
    sys.exit(main())
