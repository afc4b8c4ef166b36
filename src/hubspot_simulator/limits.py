"""HubSpot's limits: exact rolling windows per app, a second for search, the account's day."""

from collections import deque
from datetime import UTC, datetime, time, timedelta
from math import ceil
from zoneinfo import ZoneInfo

from hubspot_simulator.settings import Limits


class RollingWindow:
    """At most `calls` in any `window_s` seconds, exactly: a log of instants, no buckets."""

    def __init__(self) -> None:
        self._log: deque[float] = deque()
        self.peak = 0

    def used(self, *, at_s: float, window_s: float) -> int:
        """How many calls lie in the window that ends now."""
        log = self._log
        while log and log[0] <= at_s - window_s:
            log.popleft()
        return len(log)

    def take(self, *, at_s: float, calls: int, window_s: float) -> bool:
        """Count a call if it fits; refused calls use up nothing."""
        used = self.used(at_s=at_s, window_s=window_s)
        if used >= calls:
            return False
        self._log.append(at_s)
        self.peak = max(self.peak, used + 1)
        return True


class Limiter:
    """The limits of one account.

    Apps are told apart by their token; search and the day belong to the account.
    """

    def __init__(self, time_zone: str) -> None:
        self._zone = ZoneInfo(time_zone)
        self._apps: dict[str, RollingWindow] = {}
        self._search = RollingWindow()
        self._day: int = 0
        self.used_today = 0

    def refuse(self, limits: Limits, *, app: str, kind: str, exempt: bool, at_s: float) -> str | None:
        """Count one call, or name the policy that refuses it: DAILY, SECONDLY or TEN_SECONDLY_ROLLING."""
        self._turn_day(at_s)
        if self.used_today >= limits.daily:
            return "DAILY"
        if kind == "search":
            if not self._search.take(at_s=at_s, calls=limits.searches_per_s, window_s=1.0):
                return "SECONDLY"
        elif not exempt:
            window = self._apps.setdefault(app, RollingWindow())
            if not window.take(at_s=at_s, calls=limits.calls, window_s=limits.window_s):
                return limits.policy
        self.used_today += 1
        return None

    def headers(self, limits: Limits, *, app: str, at_s: float) -> list[tuple[bytes, bytes]]:
        """The rate limit headers of an answer; search answers carry none."""
        window = self._apps.setdefault(app, RollingWindow())
        left = max(0, limits.calls - window.used(at_s=at_s, window_s=limits.window_s))
        pairs = (
            ("x-hubspot-ratelimit-daily", limits.daily),
            ("x-hubspot-ratelimit-daily-remaining", max(0, limits.daily - self.used_today)),
            ("x-hubspot-ratelimit-interval-milliseconds", round(limits.window_s * 1000)),
            ("x-hubspot-ratelimit-max", limits.calls),
            ("x-hubspot-ratelimit-remaining", left),
        )
        return [(name.encode(), str(value).encode()) for name, value in pairs]

    def spend(self, calls: int, *, at_s: float) -> None:
        """Say how many calls the account has made today."""
        self._turn_day(at_s)
        self.used_today = calls

    def midnight_in_s(self, at_s: float) -> int:
        """How long until the day's count starts over, in whole seconds, rounded up."""
        now = datetime.fromtimestamp(at_s, UTC).astimezone(self._zone)
        midnight = datetime.combine(now.date() + timedelta(days=1), time(), self._zone)
        return ceil(midnight.timestamp() - at_s)

    def peaks(self) -> dict[str, int]:
        """The fullest windows seen, over all apps and for search."""
        return {
            "window": max((one.peak for one in self._apps.values()), default=0),
            "search": self._search.peak,
        }

    def _turn_day(self, at_s: float) -> None:
        day = datetime.fromtimestamp(at_s, UTC).astimezone(self._zone).toordinal()
        if day != self._day:
            self._day = day
            self.used_today = 0
