"""`python -m hubspot_simulator`: one portal on one port."""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from hubspot_simulator.server import PortTakenError, run
from hubspot_simulator.settings import PRESETS, Settings
from hubspot_simulator.state import StateError


def parser() -> argparse.ArgumentParser:
    """The options; the defaults are those of `Settings`."""
    given = Settings()
    options = argparse.ArgumentParser("hubspot_simulator", description="A stand-in for one HubSpot portal.")
    options.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (the back door stays on loopback)"
    )
    options.add_argument("--port", type=int, default=8100, help="0 picks a free one")
    options.add_argument("--limits", choices=[*PRESETS], default=given.limits)
    options.add_argument("--latency-ms", type=float, default=given.latency_ms)
    options.add_argument("--search-lag-s", type=float, default=given.search_lag_s)
    options.add_argument("--state", type=Path, help="keep the records in this file between runs")
    options.add_argument("--token", help="accept this bearer token only")
    options.add_argument("--contacts", type=int, default=0, help="fill in this many contacts")
    options.add_argument("--mock-exams", type=int, default=0, help="fill in this many mock exams")
    options.add_argument("--bookings", type=int, default=0, help="fill in this many bookings of the two")
    options.add_argument("--seed", type=int, default=given.seed)
    options.add_argument(
        "--stop-with-stdin",
        action="store_true",
        help="stop when standard input ends, as it does when the program that started this one dies",
    )
    options.add_argument("--portal-id", type=int, default=given.portal_id)
    return options


def _stop_with_stdin() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped; 1 with one line on stderr when the port or the state file cannot be used."""
    given = parser().parse_args(arguments)
    settings = Settings(
        limits=given.limits,
        latency_ms=given.latency_ms,
        search_lag_s=given.search_lag_s,
        state=given.state,
        token=given.token,
        contacts=given.contacts,
        mock_exams=given.mock_exams,
        bookings=given.bookings,
        seed=given.seed,
        portal_id=given.portal_id,
    )
    # uvicorn hands the signal on when it has stopped; stopping as asked is a success.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if given.stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    try:
        run(given.host, given.port, settings, lambda url: print(f"HubSpot simulator on {url}", flush=True))  # noqa: T201
    except (PortTakenError, StateError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command line speaks.
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
