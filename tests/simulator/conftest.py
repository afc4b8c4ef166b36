"""Simulators on real loopback ports."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import pytest
import uvicorn

from hubspot_simulator.app import Simulator, create_app
from hubspot_simulator.server import listen
from hubspot_simulator.settings import Settings


@dataclass
class Running:
    """A simulator that answers on `url`; `http` has a token."""

    url: str
    http: httpx.Client
    app: Simulator

    def door(self, verb: str, address: str, /, **fields: object) -> httpx.Response:
        """A call at the back door."""
        answer = self.http.request(verb, f"/_simulator/{address}", json=fields or None)
        assert answer.status_code < 300, answer.text
        return answer

    def post(self, path: str, body: object) -> httpx.Response:
        return self.http.post(path, json=body)

    def ids(self, kind: str = "contacts", limit: int = 10) -> list[str]:
        page = self.http.get(f"/crm/v3/objects/{kind}", params={"limit": limit}).json()
        return [one["id"] for one in page["results"]]


Serve = Callable[..., Running]


@contextmanager
def served() -> Iterator[Serve]:
    """Starts simulators; unless a test says otherwise they have room for every call it makes."""
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(_one(given))


@contextmanager
def _one(given: dict[str, object]) -> Iterator[Running]:
    app = create_app(Settings(**{"limit_calls": 10_000, "limit_search_per_s": 1_000, **given}))
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app, http="httptools", ws="none", access_log=False, log_level="critical", date_header=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    # The socket listens already: the first call waits for the server instead of the test polling for it.
    with httpx.Client(base_url=url, headers={"authorization": "Bearer pat-test"}, timeout=30) as client:
        yield Running(url, client, app)
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Simulators of this test's own."""
    with served() as start:
        yield start


@pytest.fixture(scope="module")
def full_portal() -> Iterator[Running]:
    """Contacts, sessions and bookings that no test of the module changes."""
    with served() as start:
        yield start(contacts=300, mock_exams=20, bookings=200)


@pytest.fixture(scope="session")
def shared_portal() -> Iterator[Running]:
    with served() as start:
        yield start()


@pytest.fixture
def portal(shared_portal: Running) -> Running:
    """A portal with 250 contacts and 8 mock exams, started over for each test."""
    shared_portal.door("POST", "reset")
    shared_portal.door("POST", "populate", contacts=250, mock_exams=8)
    return shared_portal


class _Receiver(http.server.BaseHTTPRequestHandler):
    got: list = []  # noqa: RUF012 - one receiver a test.
    refuse = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        cls = type(self)
        cls.got.append((dict(self.headers), body))
        self.send_response(500 if len(cls.got) <= cls.refuse else 204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    handler = type("Receiver", (_Receiver,), {"got": [], "refuse": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_address[1]}/hooks"
    server.shutdown()
    thread.join()
    server.server_close()
