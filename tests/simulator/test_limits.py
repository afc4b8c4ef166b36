"""HubSpot's limits in numbers, on a clock of the test's own: calls a second, a window, a day, a search."""

import httpx
import pytest

from hubspot_simulator.app import create_app
from hubspot_simulator.limits import RollingWindow
from hubspot_simulator.settings import Settings

LIST = "/crm/v3/objects/contacts"
SEARCH = "/crm/v3/objects/contacts/search"
NOON = 1_795_280_400.0  # 2026-11-21 12:00 in Toronto.


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now_s: float = NOON) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class Account:
    """A portal in this process, called through its ASGI door."""

    def __init__(self, **given: object) -> None:
        self.clock = Clock()
        self.app = create_app(Settings(**given), self.clock)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://portal",
            headers={"authorization": "Bearer pat-test"},
        )

    async def at_rate(self, per_s: int, seconds: int, *, burst: bool = False) -> list[int]:
        """Statuses of calls at an even rate, or in one burst at the start of each second."""
        start, statuses = self.clock.now_s, []
        for call in range(per_s * seconds):
            self.clock.now_s = start + (call // per_s if burst else call / per_s)
            statuses.append((await self.http.get(LIST)).status_code)
        return statuses


@pytest.mark.parametrize("burst", [False, True])
async def test_a_client_at_19_calls_a_second_sees_no_429(burst):
    """190 in ten seconds is what Professional allows, evenly or in bursts of 19."""
    statuses = await Account(limits="professional").at_rate(19, 40, burst=burst)
    assert statuses.count(429) == 0, "of 760 calls in 40 s"


async def test_a_client_at_25_calls_a_second_is_refused_what_is_too_much():
    """Of 1,000 calls in 40 s, 760 fit: 190 in each ten seconds; the rest are 429s."""
    statuses = await Account(limits="professional").at_rate(25, 40)
    assert statuses[:190] == [200] * 190
    assert statuses.count(429) == 1000 - 760


async def test_no_window_of_ten_seconds_ever_holds_more_than_190_calls():
    """The window rolls: calls at the end of one do not make room for as many at the start of the next."""
    window, taken = RollingWindow(), []
    for tick in range(4_000):
        at_s = tick * 0.013 if tick % 400 < 300 else (tick - tick % 400 + 300) * 0.013
        if window.take(at_s=at_s, calls=190, window_s=10.0):
            taken.append(at_s)
    assert max(sum(1 for two in taken if one - 10.0 < two <= one) for one in taken) == 190


async def test_a_429_names_its_policy_and_carries_the_headers():
    """The body and headers are those of the ten-second limit; refused calls use up nothing."""
    account = Account(limits="starter")
    for _ in range(100):
        answer = await account.http.get(LIST)
        assert answer.status_code == 200
    assert answer.headers["x-hubspot-ratelimit-remaining"] == "0"
    refused = await account.http.get(LIST)
    body = refused.json()
    assert refused.status_code == 429
    assert body.pop("correlationId")
    assert body.pop("requestId")
    assert body == {
        "status": "error",
        "message": "You have reached your ten_secondly_rolling limit.",
        "errorType": "RATE_LIMIT",
        "policyName": "TEN_SECONDLY_ROLLING",
    }
    assert refused.headers["x-hubspot-ratelimit-max"] == "100"
    assert refused.headers["x-hubspot-ratelimit-interval-milliseconds"] == "10000"
    assert refused.headers["x-hubspot-ratelimit-daily-remaining"] == str(250_000 - 100)
    account.clock.now_s += 10.0
    assert (await account.http.get(LIST)).status_code == 200


async def test_strict_is_ten_calls_in_any_second():
    """The eleventh call within a second of the first is refused with the secondly policy."""
    account = Account(limits="strict")
    assert (await account.at_rate(10, 5)).count(429) == 0
    account.clock.now_s += 5
    assert (await account.at_rate(20, 1)).count(429) == 10
    assert (await account.http.get(LIST)).json()["policyName"] == "SECONDLY"


async def test_search_has_a_limit_of_its_own_for_the_whole_account():
    """Five searches a second for all apps together, free of the ten-second window, without limit headers."""
    account = Account(limits="starter")
    answers = [
        await account.http.post(SEARCH, json={}, headers={"authorization": f"Bearer app-{i % 2}"})
        for i in range(7)
    ]
    assert [one.status_code for one in answers] == [200] * 5 + [429] * 2
    assert answers[-1].json()["message"] == "You have reached your secondly limit."
    assert answers[-1].json()["policyName"] == "SECONDLY"
    assert not [name for one in answers for name in one.headers if "ratelimit" in name]
    left = (await account.http.get(LIST)).headers["x-hubspot-ratelimit-remaining"]
    assert left == "99", "searches do not use up the window"
    account.clock.now_s += 1
    assert (await account.http.post(SEARCH, json={})).status_code == 200


async def test_each_app_has_a_window_of_its_own_and_all_share_the_day():
    """A second token starts with a full window; the day goes on until midnight in the portal's zone."""
    account = Account(limits="starter", limit_daily=150)
    assert [(await account.http.get(LIST)).status_code for _ in range(101)].count(429) == 1
    other = {"authorization": "Bearer other"}
    statuses = [(await account.http.get(LIST, headers=other)).status_code for _ in range(60)]
    assert statuses == [200] * 50 + [429] * 10
    refused = (await account.http.get(LIST, headers=other)).json()
    assert (refused["policyName"], refused["message"]) == ("DAILY", "You have reached your daily limit.")
    account.clock.now_s = NOON + 12 * 3600 - 1
    assert (await account.http.get(LIST)).status_code == 429, "one second before midnight"
    account.clock.now_s += 1
    assert (await account.http.get(LIST)).status_code == 200


async def test_association_batches_are_free_of_the_window():
    """Batch calls on associations count for the day only."""
    account = Account(limits="starter", limit_calls=1)
    path = "/crm/v4/associations/2-50158943/0-1/batch/read"
    statuses = [(await account.http.post(path, json={"inputs": []})).status_code for _ in range(5)]
    assert statuses == [200] * 5


async def test_the_back_door_is_neither_counted_nor_limited():
    """A hundred calls at the back door leave the window full and the counters at zero."""
    account = Account(limits="strict")
    for _ in range(100):
        assert (await account.http.get("/_simulator/stats")).status_code == 200
    assert (await account.http.get("/_simulator/stats")).json()["total"] == 0
    assert (await account.http.get(LIST)).headers["x-hubspot-ratelimit-remaining"] == "9"


async def test_stats_tell_calls_by_kind_and_refusals_by_policy():
    """Refused calls are not among the calls."""
    account = Account(limits="strict")
    await account.at_rate(12, 1, burst=True)
    await account.http.post(SEARCH, json={})
    stats = (await account.http.get("/_simulator/stats")).json()
    assert (stats["calls"]["list"], stats["calls"]["search"], stats["total"]) == (10, 1, 11)
    assert (stats["rejected_429"], stats["rejected_by_policy"]) == (2, {"SECONDLY": 2})
    assert stats["peaks"] == {"window": 10, "search": 1}
