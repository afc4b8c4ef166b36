"""The commands `tallybook sync push`, `pull` and `reconcile`: the mirror's work, done now and to its end."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.session import AsJson, DryRun, print_json, print_table, with_parts
from tallybook.domain.errors import Observing, SetupError

if TYPE_CHECKING:
    from tallybook.jobs.lease import JobResult
    from tallybook.usecases.preview_push import PlannedWrite
    from tallybook.wiring import Parts

# Between these somebody may stop, and is told how far it is.
_SLICE_S = 3.0
# Leaving a walk makes the calls on their way in vain, so it is left seldom; Ctrl-C is heard between pages.
_WALK_SLICE_S = 30.0
_COLUMNS = ("object_type", "action", "dead", "hubspot_id", "object_id", "properties")


def push(*, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Write to HubSpot whatever waits now. Ctrl-C stops after what is on its way; the rest waits on."""
    from tallybook.jobs.push_changes import push_until

    if dry_run:
        _preview(as_json=as_json)
        return

    async def work(parts: Parts) -> tuple[Counter[str], bool, dict[str, Any]]:
        from tallybook.usecases.guard_mirror import demand_same_portal
        from tallybook.usecases.show_sync_status import show_sync_status

        parts.settings.needed("HS_PRIVATE_APP_TOKEN")
        if parts.settings.observes:
            raise Observing(setting="TALLYBOOK_MODE=observe")
        await demand_same_portal(parts.mirror)
        counts, done = await _in_slices(
            lambda _: push_until(parts.mirror, max_s=_SLICE_S),
            quiet=as_json,
            # What still waits then waits for something else.
            is_idle=lambda news: "claimed" not in news,
        )
        return counts, done, await show_sync_status(parts.db)

    counts, done, status = with_parts(work)
    lanes = [lane for lane in status["lanes"] if lane["lane"] != "pull"]
    paused = {lane["lane"]: lane["paused"]["reason"] for lane in lanes if lane["paused"]}
    waiting = sum(lane["waiting"] for lane in lanes)
    # The slices' own counts of it add up to nothing.
    del counts["waiting"]
    if as_json:
        print_json({"counts": dict(counts), "done": done, "waiting": waiting, "paused": paused})
    else:
        print(f"{counts['written']} written, {counts['failed']} failed, {counts['dead']} given up.")
        if waiting:
            print(f"{waiting} wait for later: tallybook sync status")
        for lane, reason in paused.items():
            print(f"The lane {lane} is paused: {reason}")
    if paused or counts["dead"]:
        raise typer.Exit(1)


def pull(
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Read everything there is, not only what has changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read from HubSpot whatever has changed there. Ctrl-C stops after what is on its way."""
    from tallybook.jobs.pull_changes import pull_until

    async def work(parts: Parts) -> tuple[Counter[str], bool]:
        from tallybook.cli.importing import bring_in
        from tallybook.usecases.guard_mirror import demand_same_portal

        parts.settings.needed("HS_PRIVATE_APP_TOKEN")
        await demand_same_portal(parts.mirror)
        read = await bring_in(parts, quiet=as_json) if full else None
        counts, done = await _in_slices(lambda _: pull_until(parts.mirror, max_s=_SLICE_S), quiet=as_json)
        if read is not None:
            counts.update(read.counts)
        return counts, done

    counts, done = with_parts(work)
    if as_json:
        print_json({"counts": dict(counts), "done": done})
        return
    print(f"{_told(counts)}." if any(counts.values()) else "Nothing has changed in HubSpot.")
    if counts["already_polling"]:
        print("A worker is searching for changes at this moment; what it finds is followed there.")


def reconcile(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Also queue what HubSpot was not told, instead of counting it.")
    ] = False,
    after_restore: Annotated[
        bool,
        typer.Option(
            "--after-restore",
            help="After `tallybook restore`, or a rebind: bring back what HubSpot knows and this does not.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare everything with HubSpot and merge what differs. Stopped, it goes on there the next time."""
    if after_restore:
        from tallybook.cli.after_restore import reconcile_restored

        reconcile_restored(as_json=as_json)
        return
    from tallybook.jobs import reconcile as job
    from tallybook.jobs.lease import JobRunningError, under_lease

    async def work(parts: Parts) -> tuple[Counter[str], bool]:
        from tallybook.usecases.guard_mirror import demand_same_portal

        parts.settings.needed("HS_PRIVATE_APP_TOKEN")
        await demand_same_portal(parts.mirror)

        async def once(stop: asyncio.Event) -> JobResult:
            work = partial(
                job.reconcile,
                parts.mirror,
                max_s=_WALK_SLICE_S,
                repair=repair,
                go_on=lambda: not stop.is_set(),
            )
            return await under_lease(parts.db, job.JOB, work)

        try:
            return await _in_slices(once, quiet=as_json, is_cumulative=True)
        except JobRunningError as error:
            raise SetupError("another reconcile is running", hint="Wait until it ends.") from error

    counts, done = with_parts(work)
    if as_json:
        print_json({"counts": dict(counts), "done": done})
        return
    print(f"{_told(counts)}.")
    print("Everything was compared." if done else "Stopped; the next reconcile goes on here.")


def _preview(*, as_json: bool) -> None:
    from tallybook.usecases.preview_push import preview_push

    async def work(parts: Parts) -> list[PlannedWrite]:
        return await preview_push(parts.mirror)

    found = [_shown(each) for each in with_parts(work)]
    if as_json:
        print_json(found)
    elif found:
        print_table(found, _COLUMNS)
    else:
        print("Nothing waits to be written to HubSpot.")


def _shown(planned: PlannedWrite) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(planned), "object_type": planned.object_type.value}


async def _in_slices(
    work: Callable[[asyncio.Event], Awaitable[JobResult]],
    *,
    quiet: bool,
    is_cumulative: bool = False,
    is_idle: Callable[[Mapping[str, int]], bool] = lambda news: set(news) == {"already_polling"},
) -> tuple[Counter[str], bool]:
    """Repeats the work until it is done or somebody presses Ctrl-C: what it did, and whether it is done.

    The work is given the event that Ctrl-C sets, should it want to end sooner than its slice.
    `is_idle`: by what one slice did, another would do nothing (where a worker does the same, say).
    `is_cumulative`: each result counts those before it, too. Pressed again, Ctrl-C does not wait: what is on
    its way then is brought to its end by the next run.
    """
    counts: Counter[str] = Counter()
    with _interruptible() as stop:
        while True:
            result = await work(stop)
            news = {name: number for name, number in result.counts.items() if number}
            counts = Counter(news) if is_cumulative else counts + Counter(news)
            if result.done or stop.is_set() or is_idle(news):
                return counts, result.done
            if not quiet:
                print(_told(counts), file=sys.stderr)


@contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """An event that the first Ctrl-C sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        print("Stopping after what is on its way. Press Ctrl-C again not to wait.", file=sys.stderr)
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    # Beside the main thread signals cannot be heard; there Ctrl-C just ends the command.
    is_heard = threading.current_thread() is threading.main_thread()
    if is_heard:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        if is_heard:
            loop.remove_signal_handler(signal.SIGINT)


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in counts.items())
