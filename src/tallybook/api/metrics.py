"""Figures for Prometheus: requests, look-ups, HubSpot calls, the connection pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tallybook.api.deps import CrmCalls
from tallybook.api.metrics_across import FiguresAcrossProcesses, is_one_of_many
from tallybook.api.mirror_metrics import MirrorFigures

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The figures of one process, or its part of those of several.

    Label children are kept: finding them costs more than counting.
    """

    def __init__(
        self,
        *,
        pool_figures: Callable[[], Mapping[str, float]] | None,
        crm_figures: Callable[[], Mapping[str, CrmCalls]] | None,
        mirror_figures: MirrorFigures | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self.in_flight = 0
        self._mirror = mirror_figures
        self._children: dict[
            tuple[str, str, int, str | None], tuple[Callable[[], None], Callable[[float], None]]
        ] = {}
        self._seconds = Histogram(
            "tallybook_request_seconds",
            "Seconds per request; lookup: the student was stored (hit), asked of HubSpot (miss), neither",
            ["route", "method", "lookup"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._requests = Counter(
            "tallybook_requests", "Requests by status", ["route", "method", "status"], registry=self._registry
        )
        self._hits = Counter(
            "tallybook_lookup_hits", "Look-ups answered from PostgreSQL", registry=self._registry
        )
        self._misses = Counter(
            "tallybook_lookup_misses", "Look-ups that asked HubSpot", registry=self._registry
        )
        not_stored = Counter(
            "tallybook_lookups_not_stored",
            "Answers of HubSpot that PostgreSQL could not keep",
            registry=self._registry,
        )
        self.count_not_stored: Callable[[], None] = not_stored.inc
        self._events = Counter(
            "tallybook_webhook_events",
            "Events of HubSpot's webhooks by what became of them",
            ["outcome"],
            registry=self._registry,
        )
        self._hit_count = 0
        self._miss_count = 0
        self._across: FiguresAcrossProcesses | None = None
        if is_one_of_many():
            self._across = FiguresAcrossProcesses(
                in_flight=lambda: self.in_flight,
                pool_figures=pool_figures,
                crm_figures=crm_figures,
                mirror_figures=mirror_figures,
            )
            return
        in_flight = Gauge("tallybook_requests_in_flight", "Requests being answered", registry=self._registry)
        in_flight.set_function(lambda: self.in_flight)
        hit_rate = Gauge(
            "tallybook_lookup_hit_rate", "Share of look-ups answered from PostgreSQL", registry=self._registry
        )
        hit_rate.set_function(self._hit_rate)
        self._registry.register(_Figures(pool_figures, crm_figures))
        if mirror_figures is not None:
            self._registry.register(mirror_figures)

    def observe(self, *, route: str, method: str, status: int, lookup: str | None, seconds: float) -> None:
        """Count one answered request."""
        key = (route, method, status, lookup)
        children = self._children.get(key)
        if children is None:
            children = (
                self._requests.labels(route, method, str(status)).inc,
                self._seconds.labels(route, method, lookup or "none").observe,
            )
            self._children[key] = children
        children[0]()
        children[1](seconds)
        if lookup == "hit":
            self._hit_count += 1
            self._hits.inc()
        elif lookup == "miss":
            self._miss_count += 1
            self._misses.inc()
        if self._across is not None:
            self._across.publish()

    def count_events(self, **outcomes: int) -> None:
        """Count what became of the events of a webhook."""
        for outcome, count in outcomes.items():
            self._events.labels(outcome).inc(count)

    async def exposition(self) -> bytes:
        """Everything in the text format of Prometheus."""
        if self._mirror is not None:
            await self._mirror.refresh()
        return generate_latest(self._registry) if self._across is None else self._across.exposition()

    def _hit_rate(self) -> float:
        looked_up = self._hit_count + self._miss_count
        return self._hit_count / looked_up if looked_up else float("nan")


class _Figures(Collector):
    """Figures that others keep and that are read when Prometheus asks."""

    def __init__(
        self,
        pool_figures: Callable[[], Mapping[str, float]] | None,
        crm_figures: Callable[[], Mapping[str, CrmCalls]] | None,
    ) -> None:
        self._pool_figures = pool_figures
        self._crm_figures = crm_figures

    def describe(self) -> Iterable[Metric]:
        """Nothing: asking for figures at registration would be too early."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The present figures."""
        if self._pool_figures is not None:
            pool = GaugeMetricFamily(
                "tallybook_pool_connections", "Database connections by state", labels=["state"]
            )
            for state, count in self._pool_figures().items():
                pool.add_metric([state], count)
            yield pool
        if self._crm_figures is not None:
            calls = CounterMetricFamily(
                "tallybook_hubspot_calls", "Calls to HubSpot by kind", labels=["kind"]
            )
            throttled = CounterMetricFamily(
                "tallybook_hubspot_throttled",
                "Calls that HubSpot answered with 429, by kind",
                labels=["kind"],
            )
            for kind, figures in self._crm_figures().items():
                calls.add_metric([kind], figures.calls)
                throttled.add_metric([kind], figures.throttled)
            yield calls
            yield throttled
