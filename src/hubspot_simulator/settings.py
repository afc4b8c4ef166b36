"""What one simulated portal is told at start; the back door may change most of it while it runs."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls one app may make in any rolling window, and the account in a day and a second."""

    calls: int
    window_s: float
    policy: str
    daily: int
    searches_per_s: int = 5


# The first three are HubSpot's usage guidelines; `strict` is the limit the old booking system suffered from.
PRESETS = {
    "starter": Limits(calls=100, window_s=10.0, policy="TEN_SECONDLY_ROLLING", daily=250_000),
    "professional": Limits(calls=190, window_s=10.0, policy="TEN_SECONDLY_ROLLING", daily=625_000),
    "enterprise": Limits(calls=190, window_s=10.0, policy="TEN_SECONDLY_ROLLING", daily=1_000_000),
    "strict": Limits(calls=10, window_s=1.0, policy="SECONDLY", daily=250_000),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """One portal: its limits, its speed, its quirks and what it holds at start.

    `limit_calls`, `limit_window_s`, `limit_daily` and `limit_search_per_s` override the preset named by
    `limits`. `cleared_reads_null` picks how a cleared value reads (null, else an empty string): HubSpot
    documents neither. `stamp_skew_ms` is how far apart the histories put what one request wrote, the last of
    it at the request's own time. `merge_fills` lets a merged record take values the primary never had from
    the other. `revoked` answers 401, `locked` 423 to writes, `missing_scopes` 403 to calls that need them,
    and until `migrating_until_s` on the portal's clock everything is answered with 477.
    """

    limits: str = "professional"
    limit_calls: int | None = None
    limit_window_s: float | None = None
    limit_daily: int | None = None
    limit_search_per_s: int | None = None
    latency_ms: float = 0.0
    search_lag_s: float = 0.0
    history_lag_ms: float = 0.0
    history_limit: int = 20
    stamp_skew_ms: int = 0
    same_value_entry: bool = False
    merge_fills: bool = True
    revoked: bool = False
    locked: bool = False
    missing_scopes: tuple[str, ...] = ()
    migrating_until_s: float = 0.0
    cleared_reads_null: bool = True
    clock_offset_s: float = 0.0
    portal_id: int = 8_123_456
    time_zone: str = "America/Toronto"
    token: str | None = None
    state: Path | None = None
    contacts: int = 0
    mock_exams: int = 0
    bookings: int = 0
    seed: int = 1

    def resolved_limits(self) -> Limits:
        """The preset with the overrides applied; KeyError when the preset is unknown."""
        preset = PRESETS[self.limits]
        return Limits(
            calls=preset.calls if self.limit_calls is None else self.limit_calls,
            window_s=preset.window_s if self.limit_window_s is None else self.limit_window_s,
            policy=preset.policy,
            daily=preset.daily if self.limit_daily is None else self.limit_daily,
            searches_per_s=preset.searches_per_s
            if self.limit_search_per_s is None
            else self.limit_search_per_s,
        )
