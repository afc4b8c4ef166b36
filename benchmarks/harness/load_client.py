"""The load generator, a process of its own: keep-alive connections over plain sockets, prepared requests.

It is run with a file of pickled requests and options, says "ready", waits for a line, and prints its result
as JSON. Whatever can be done before or after the measured time is, since it shares the machine with what it
measures.
"""

from __future__ import annotations

import json
import pickle
import resource
import selectors
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

_FAILURES_SHOWN = 3
_GIVE_UP_S = 60.0


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    sent_at: float = 0.0
    received: bytes = b""
    waiting: bytes = b""


@dataclass(slots=True)
class _Run:
    """One measured run; `deadline_s` None sends every request once, else they repeat until then."""

    address: tuple[str, int]
    requests: list[bytes]
    deadline_s: float | None
    connections: int
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    next: int = 0

    def closed_loop(self) -> float:
        """Each connection sends, waits for the answer, and sends again; gives the seconds it took."""
        selector = selectors.DefaultSelector()
        opened = [socket.create_connection(self.address) for _ in range(self.connections)]
        for each in opened:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(each, selectors.EVENT_READ, _Connection(each))
        _wait_for_go()
        started_at = time.perf_counter()
        ends_at = None if self.deadline_s is None else started_at + self.deadline_s
        busy = sum(self._send_next(key.data, ends_at) for key in list(selector.get_map().values()))
        while busy:
            ready = selector.select(_GIVE_UP_S)
            if not ready:
                raise TimeoutError(f"{busy} requests were not answered within {_GIVE_UP_S:.0f} s")
            for key, _ in ready:
                if self._receive(key.data) and not self._send_next(key.data, ends_at):
                    busy -= 1
        return time.perf_counter() - started_at

    def burst(self) -> float:
        """One new connection per request, all at once; each request's time begins with the burst."""
        selector = selectors.DefaultSelector()
        _wait_for_go()
        started_at = time.perf_counter()
        for request in self.requests:
            opened = socket.socket()
            opened.setblocking(False)
            opened.connect_ex(self.address)
            connection = _Connection(opened, started_at, waiting=request)
            selector.register(opened, selectors.EVENT_WRITE, connection)
        busy = len(self.requests)
        while busy:
            ready = selector.select(_GIVE_UP_S)
            if not ready:
                raise TimeoutError(f"{busy} requests were not answered within {_GIVE_UP_S:.0f} s")
            for key, _ in ready:
                connection = key.data
                if connection.waiting:
                    connection.socket.send(connection.waiting)
                    connection.waiting = b""
                    selector.modify(connection.socket, selectors.EVENT_READ, connection)
                elif self._receive(connection):
                    busy -= 1
                    selector.unregister(connection.socket)
                    connection.socket.close()
        return time.perf_counter() - started_at

    def paced(self, per_s: float) -> float:
        """So many requests a second, each on a connection that is free; a late one is not left out."""
        selector = selectors.DefaultSelector()
        # In turn, so that none is idle for so long that the server closes it.
        idle = deque(_Connection(socket.create_connection(self.address)) for _ in range(self.connections))
        for each in idle:
            each.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(each.socket, selectors.EVENT_READ, each)
        _wait_for_go()
        started_at = time.perf_counter()
        while self.next < len(self.requests) or len(idle) < self.connections:
            wait_s = _GIVE_UP_S
            if idle and self.next < len(self.requests):
                wait_s = started_at + self.next / per_s - time.perf_counter()
                if wait_s <= 0:
                    self._send_next(idle.popleft(), None)
                    continue
            ready = selector.select(wait_s)
            if not ready and wait_s >= _GIVE_UP_S:
                raise TimeoutError(f"requests were not answered within {_GIVE_UP_S:.0f} s")
            idle += [key.data for key, _ in ready if self._receive(key.data)]
        return time.perf_counter() - started_at

    def _send_next(self, connection: _Connection, ends_at: float | None) -> bool:
        now = time.perf_counter()
        if ends_at is None:
            if self.next >= len(self.requests):
                return False
        elif now >= ends_at:
            return False
        connection.sent_at = now
        connection.socket.sendall(self.requests[self.next % len(self.requests)])
        self.next += 1
        return True

    def _receive(self, connection: _Connection) -> bool:
        """Whether the answer is complete."""
        data = connection.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection in the middle of an answer")
        if connection.received:
            data = connection.received + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or len(data) < head_end + 4 + _content_length(data[:head_end]):
            connection.received = data
            return False
        connection.received = b""
        self.latencies_s.append(time.perf_counter() - connection.sent_at)
        status = data[9:12].decode()
        self.statuses[status] += 1
        if status[0] != "2" and len(self.failures) < _FAILURES_SHOWN:
            self.failures.append(data[head_end + 4 :].decode(errors="replace")[:500])
        return True


def _content_length(head: bytes) -> int:
    at = head.find(b"content-length: ")
    if at < 0:
        head = head.lower()
        at = head.find(b"content-length: ")
    if at < 0:
        raise ValueError("an answer without Content-Length")
    end = head.find(b"\r\n", at)
    return int(head[at + 16 : end if end >= 0 else None])


def _wait_for_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Runs what the file named by the first argument says."""
    plan = pickle.loads(Path(sys.argv[1]).read_bytes())
    run = _Run(tuple(plan["address"]), plan["requests"], plan["seconds"], plan["connections"])
    before_s = _cpu_s()
    if plan["per_s"] is not None:
        seconds = run.paced(plan["per_s"])
    else:
        seconds = run.burst() if plan["burst"] else run.closed_loop()
    result = {
        "seconds": seconds,
        "statuses": dict(run.statuses),
        "latencies_ms": [latency * 1000 for latency in run.latencies_s],
        "failures": run.failures,
        "cpu_s": _cpu_s() - before_s,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
