"""The load generator measures the server, not itself."""

import asyncio
import time
from collections import Counter

import pytest

from tallybook.cli.loadtest import _percentile, _waves
from tallybook.cli.loadtest_client import LoadClient, Target


@pytest.fixture
async def slow_server():
    """Answers each request after 0.3 s with what the test sets; counts connections and waves' arrivals."""
    arrivals = []
    head = {"text": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"}

    async def answer(reader, writer):
        try:
            while await reader.readuntil(b"}"):
                arrivals.append(time.monotonic())
                await asyncio.sleep(0.3)
                writer.write(head["text"])
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], arrivals, head


def client_and_request(port):
    client = LoadClient(Target.parse(f"http://127.0.0.1:{port}"), timeout_s=5)
    return client, client.request("/x", b"{}", headers={})


async def test_waves_start_on_time_although_nothing_was_answered_yet(slow_server):
    """Five waves 20 ms apart are all sent before the first answer, which takes 300 ms."""
    port, arrivals, _ = slow_server
    client, request = client_and_request(port)
    outcome = await client.run([[request] * 4] * 5, interval_s=0.02)
    assert outcome.statuses == Counter({200: 20})
    assert max(arrivals) - min(arrivals) < 0.25
    assert len(outcome.latencies_ms) == 20
    assert min(outcome.latencies_ms) >= 290


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\nConnection: close\r\n\r\n", 429),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
        (b"nonsense\r\n\r\n", 0),
    ],
)
async def test_every_kind_of_answer_is_counted(slow_server, text, status):
    """Statuses as they are, and 0 for what is no answer."""
    port, _, head = slow_server
    head["text"] = text
    client, request = client_and_request(port)
    outcome = await client.run([[request] * 2, [request]], interval_s=0.4)
    assert outcome.statuses == Counter({status: 3})


async def test_a_server_that_is_not_there_is_a_failure_with_its_reason():
    """Nothing is raised; the figures say it."""
    client, request = client_and_request(1)
    outcome = await client.run([[request] * 3], interval_s=0)
    assert outcome.statuses == Counter({0: 3})
    assert outcome.problems == Counter({"ConnectionRefusedError": 3})


def test_waves_share_the_requests_evenly():
    """400 in 40 are ten each; 10 in 4 are 3, 3, 2, 2."""
    requests = [b"x"] * 400
    assert [len(wave) for wave in _waves(requests, 40)] == [10] * 40
    assert [len(wave) for wave in _waves(requests[:10], 4)] == [3, 3, 2, 2]


def test_a_percentile_is_a_value_that_was_measured():
    """The smallest that at least this share does not exceed."""
    hundred = [float(n) for n in range(1, 101)]
    assert [_percentile(hundred, part) for part in (0.5, 0.95, 0.99)] == [50.0, 95.0, 99.0]
    assert _percentile([7.0], 0.5) == 7.0
    assert _percentile([], 0.5) is None
