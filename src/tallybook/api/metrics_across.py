"""The figures of several server processes as one: each publishes into files, and who is asked adds them up.

Counters and histograms do so by themselves (Prometheus' multiprocess mode). Figures that others keep have to
be copied there now and then, which is done with the requests and at most once a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from tallybook.api.deps import CrmCalls

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PUBLISH_EVERY_S = 1.0


def is_one_of_many() -> bool:
    """Whether this process was started as one of several that answer on the same port."""
    return DIRECTORY_VARIABLE in os.environ


class FiguresAcrossProcesses:
    """This process's part of the figures, and the sum of all."""

    def __init__(
        self,
        *,
        in_flight: Callable[[], int],
        pool_figures: Callable[[], Mapping[str, float]] | None,
        crm_figures: Callable[[], Mapping[str, CrmCalls]] | None,
        mirror_figures: Collector | None,
    ) -> None:
        registry = CollectorRegistry()
        self._mirror = mirror_figures
        self._in_flight = in_flight
        self._pool_figures = pool_figures
        self._crm_figures = crm_figures
        self._published_at = 0.0
        self._told: dict[tuple[str, str], int] = {}
        self._in_flight_gauge = Gauge(
            "tallybook_requests_in_flight",
            "Requests being answered",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._pool_gauge = Gauge(
            "tallybook_pool_connections",
            "Database connections by state",
            ["state"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._crm_counters = {
            "calls": Counter(
                "tallybook_hubspot_calls", "Calls to HubSpot by kind", ["kind"], registry=registry
            ),
            "throttled": Counter(
                "tallybook_hubspot_throttled",
                "Calls that HubSpot answered with 429, by kind",
                ["kind"],
                registry=registry,
            ),
        }

    def publish(self) -> None:
        """Copies this process's figures to where the others see them, unless that was done a moment ago."""
        now = monotonic()
        if now - self._published_at < _PUBLISH_EVERY_S:
            return
        self._published_at = now
        self._in_flight_gauge.set(self._in_flight())
        for state, count in (self._pool_figures() if self._pool_figures else {}).items():
            self._pool_gauge.labels(state).set(count)
        for kind, figures in (self._crm_figures() if self._crm_figures else {}).items():
            for name, counter in self._crm_counters.items():
                count = int(getattr(figures, name))
                counter.labels(kind).inc(count - self._told.get((kind, name), 0))
                self._told[kind, name] = count

    def exposition(self) -> bytes:
        """The sum of all processes that live, in the text format of Prometheus."""
        self._published_at = 0.0
        self.publish()
        _forget_the_dead()
        registry = CollectorRegistry()
        registry.register(_Sum())
        if self._mirror is not None:
            # Of the whole installation already: nothing to add up.
            registry.register(self._mirror)
        return generate_latest(registry)


class _Sum(Collector):
    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        looked_up: dict[str, float] = {}
        for metric in MultiProcessCollector(None).collect():  # type: ignore[no-untyped-call]
            for sample in metric.samples:
                if sample.name in ("tallybook_lookup_hits_total", "tallybook_lookup_misses_total"):
                    looked_up[sample.name] = sample.value
            yield metric
        hits, all_of_them = looked_up.get("tallybook_lookup_hits_total", 0.0), sum(looked_up.values())
        yield GaugeMetricFamily(
            "tallybook_lookup_hit_rate",
            "Share of look-ups answered from PostgreSQL",
            value=hits / all_of_them if all_of_them else float("nan"),
        )


def _forget_the_dead() -> None:
    """A process that was killed takes its connections with it; what it counted stays."""
    for file in Path(os.environ[DIRECTORY_VARIABLE]).glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
