"""Figures of the mirror for Prometheus: one query for all of them, and none if one was made a moment ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tallybook.domain.errors import TallybookError
from tallybook.postgres.pool import Database
from tallybook.usecases.show_sync_status import show_sync_status

_GOOD_FOR_S = 5.0
_PATIENCE_S = 3.0
_LANES = (
    (
        "tallybook_mirror_waiting",
        "Changes to be written to HubSpot; pull: hints to be followed",
        "waiting",
    ),
    ("tallybook_mirror_lag_oldest_seconds", "Age of the oldest of these", "oldest_s"),
    ("tallybook_mirror_lag_p95_seconds", "Age that 95 % of them are below", "p95_s"),
    ("tallybook_mirror_dead_letters", "Changes or hints that wait for a person", "dead_letters"),
)


class MirrorFigures(Collector):
    """How the mirror stands, for all processes; without a database only `tallybook_mirror_known` 0."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._status: dict[str, Any] | None = None
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def refresh(self) -> None:
        """Asks the database, unless that was done a moment ago."""
        async with self._asking:
            if time.monotonic() - self._asked_at < _GOOD_FOR_S:
                return
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    self._status = await show_sync_status(self._db)
            except (TallybookError, TimeoutError):
                # A figure of some time ago would look like a mirror that stands still.
                self._status = None
            self._asked_at = time.monotonic()

    def describe(self) -> Iterable[Metric]:
        """Nothing: asking for figures at registration would be too early."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The figures of the last refresh."""
        status = self._status
        yield GaugeMetricFamily(
            "tallybook_mirror_known", "Whether the database told these figures", value=status is not None
        )
        if status is not None:
            yield from _of_lanes(status)
            yield from _of_all(status)
            yield from _of_calls(status)


def _of_lanes(status: dict[str, Any]) -> Iterable[Metric]:
    for name, meaning, key in _LANES:
        gauge = GaugeMetricFamily(name, meaning, labels=["lane"])
        for lane in status["lanes"]:
            if lane[key] is not None:
                gauge.add_metric([lane["lane"]], lane[key])
        yield gauge
    paused = GaugeMetricFamily("tallybook_mirror_paused", "Whether the lane is paused", labels=["lane"])
    for lane in status["lanes"]:
        paused.add_metric([lane["lane"]], lane["paused"] is not None)
    yield paused


def _of_all(status: dict[str, Any]) -> Iterable[Metric]:
    conflicts = GaugeMetricFamily(
        "tallybook_mirror_conflicts", "Conflicts that wait for a person", labels=["object_type", "kind"]
    )
    for each in status["conflicts"]["by_kind"]:
        conflicts.add_metric([each["object_type"], each["kind"]], each["open"])
    yield conflicts
    yield GaugeMetricFamily(
        "tallybook_mirror_held", "Whether all pushing is stopped", value=status["hold"] is not None
    )
    behind = GaugeMetricFamily(
        "tallybook_mirror_poll_lag_seconds", "Since when HubSpot was not searched", labels=["object_type"]
    )
    for each in status["pulled"]:
        if each["behind_s"] is not None:
            behind.add_metric([each["object_type"]], each["behind_s"])
    yield behind
    alerts = GaugeMetricFamily("tallybook_mirror_alerts", "Open alerts", labels=["kind", "subject"])
    for each in status["alerts"]:
        alerts.add_metric([each["kind"], each["subject"]], 1)
    yield alerts


def _of_calls(status: dict[str, Any]) -> Iterable[Metric]:
    in_use = GaugeMetricFamily("tallybook_mirror_calls_in_use", "Slots of the call budget", labels=["kind"])
    calls = CounterMetricFamily(
        "tallybook_mirror_calls", "Calls to HubSpot by kind, of all processes", labels=["kind"]
    )
    throttled = CounterMetricFamily(
        "tallybook_mirror_throttled", "Of these those answered with 429", labels=["kind"]
    )
    for each in status["budget"]:
        in_use.add_metric([each["kind"]], each["in_use"])
        calls.add_metric([each["kind"]], each["calls"])
        throttled.add_metric([each["kind"]], each["throttled"])
    yield in_use
    yield calls
    yield throttled
