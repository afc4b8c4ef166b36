"""Sends load from a process of its own, and says what the answers and the CPU time were."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.cluster import API_KEY, FIRST_STUDENT
from harness.paths import HERE
from harness.report import percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Answers of one run by status, their times, and the CPU time used meanwhile by name."""

    seconds: float
    statuses: dict[str, int]
    latencies_ms: list[float]
    failures: list[str]
    cpu_s: dict[str, float] = field(default_factory=dict)

    @property
    def answers(self) -> int:
        """How many answers came."""
        return sum(self.statuses.values())

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    def percentile_ms(self, part: float) -> float:
        """The time below which `part` of the answers came."""
        return percentile(self.latencies_ms, part)

    @property
    def mean_ms(self) -> float:
        """The mean time of an answer."""
        return sum(self.latencies_ms) / len(self.latencies_ms)

    def cpu_ms_each(self, name: str) -> float:
        """CPU time per answer."""
        return self.cpu_s[name] * 1000 / self.answers

    def expect(self, status: str) -> None:
        """Raises when any answer had another status: a fast failure is no speed."""
        if set(self.statuses) != {status}:
            raise RuntimeError(f"expected {status} only, got {self.statuses}: {self.failures}")


def post(path: str, body: dict[str, object]) -> bytes:
    """A whole request as it goes over the wire, signed with the benchmark's API key."""
    content = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


def check_request(student: int, mock_type: str = "Situational Judgment") -> bytes:
    """A credit check of student number `student` of the filled database."""
    return post("/api/mock-exams/validate-credits", {**_pair(student), "mock_type": mock_type})


def booking_request(student: int, mock_exam_id: str) -> bytes:
    """A booking of student number `student` of the filled database."""
    return post("/api/bookings/create", {**_pair(student), "mock_exam_id": mock_exam_id})


def simulated_check(contact: int) -> bytes:
    """A credit check of contact number `contact` of the simulated portal."""
    pair = {"student_id": str(1_599_000 + contact), "email": f"student{contact}@example.com"}
    return post("/api/mock-exams/validate-credits", {**pair, "mock_type": "Situational Judgment"})


def simulated_booking(contact: int, mock_exam_id: str) -> bytes:
    """A booking of contact number `contact` of the simulated portal."""
    pair = {"student_id": str(1_599_000 + contact), "email": f"student{contact}@example.com"}
    return post("/api/bookings/create", {**pair, "mock_exam_id": mock_exam_id})


def _pair(student: int) -> dict[str, object]:
    return {"student_id": str(FIRST_STUDENT + student), "email": f"s{student}@example.com"}


def send(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int = 16,
    seconds: float | None = None,
    burst: bool = False,
    per_s: float | None = None,
    cpu: dict[str, Callable[[], float]] | None = None,
) -> Load:
    """Sends each request once, or all again and again for `seconds`.

    `burst` sends all at once, each on a new connection; `per_s` at a constant rate, however slow answers are.
    `cpu` names functions that tell the CPU time used so far; they are asked right before and after.
    """
    plan = {
        "address": ("127.0.0.1", port),
        "requests": list(requests),
        "seconds": seconds,
        "connections": connections,
        "burst": burst,
        "per_s": per_s,
    }
    with tempfile.TemporaryDirectory(prefix="tallybook-load-") as directory:
        file = Path(directory) / "plan"
        file.write_bytes(pickle.dumps(plan))
        with subprocess.Popen(
            [sys.executable, str(HERE / "load_client.py"), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            if client.stdout.readline() != "ready\n":
                raise RuntimeError("the load generator did not start")
            before = {name: used() for name, used in (cpu or {}).items()}
            client.stdin.write("go\n")
            client.stdin.flush()
            line = client.stdout.readline()
            after = {name: used() for name, used in (cpu or {}).items()}
        if not line:
            raise RuntimeError("the load generator failed")
        got = json.loads(line)
    used_s = {name: after[name] - before[name] for name in before} | {"client": got.pop("cpu_s")}
    return Load(**got, cpu_s=used_s)
