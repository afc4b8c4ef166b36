"""What every contender does alike: the database, the key check, one log line, metrics. No framework here."""

import asyncio
import hashlib
import os
import time
import uuid
from collections import deque
from contextlib import asynccontextmanager

import msgspec
import psycopg
from prometheus_client import Counter, Histogram

KEYS = {hashlib.blake2b(b"tb_1_secret", key=b"server secret").digest(): "key:1"}
FIND = """
select c.id::text, c.name, c.specific_credits, c.shared_credits
from students c where c.student_id = %s and c.email = %s
"""
REQUESTS = Counter("requests", "Requests by route and status", ["route", "status"])
SECONDS = Histogram("seconds", "Time to answer", ["route"])
LOG = os.open(os.devnull, os.O_WRONLY)
encode = msgspec.json.Encoder().encode


class CreditCheck(msgspec.Struct, forbid_unknown_fields=True):
    student_id: str
    email: str
    mock_type: str


decode = msgspec.json.Decoder(CreditCheck).decode


class Pool:
    """Autocommit connections, the one used last first: its caches are warm."""

    def __init__(self):
        self._idle, self._waiting = [], deque()

    async def open(self):
        for _ in range(8):
            connection = await psycopg.AsyncConnection.connect(
                os.environ["BENCHMARK_DATABASE_URL"], autocommit=True, prepare_threshold=0
            )
            self._idle.append(connection)

    async def close(self):
        for connection in self._idle:
            await connection.close()

    async def fetch_one(self, statement, parameters):
        if self._idle:
            connection = self._idle.pop()
        else:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            connection = await turn
        try:
            async with connection.cursor() as cursor:
                await cursor.execute(statement, parameters)
                return await cursor.fetchone()
        finally:
            if self._waiting:
                self._waiting.popleft().set_result(connection)
            else:
                self._idle.append(connection)


pool = Pool()


@asynccontextmanager
async def lifespan(_app=None):
    await pool.open()
    yield
    await pool.close()


async def check(student_id, email, mock_type):
    row = await pool.fetch_one(FIND, (student_id, email))
    return {
        "success": True,
        "data": {
            "eligible": row[2] + row[3] > 0,
            "contact_id": row[0],
            "student_name": row[1],
            "available_credits": row[2] + row[3],
            "credit_breakdown": {"specific_credits": row[2], "shared_credits": row[3]},
            "mock_type": mock_type,
            "source": "database",
        },
    }


def caller_of(authorization):
    return KEYS.get(hashlib.blake2b(authorization.removeprefix(b"Bearer "), key=b"server secret").digest())


def write_log_line(request_id, caller, path, status, seconds):
    line = {"event": "request", "at": time.time(), "request_id": request_id, "caller": caller}
    line |= {"path": path, "status": status, "ms": seconds * 1000}
    os.write(LOG, encode(line) + b"\n")


def count(path, status, seconds):
    REQUESTS.labels(path, status).inc()
    SECONDS.labels(path).observe(seconds)


class Around:
    """Request id, key check, log line and metrics as plain ASGI, for all but FastAPI as usual."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_at = time.perf_counter()
        request_id, status = uuid.uuid4().hex, 500
        headers = dict(scope["headers"])
        caller = caller_of(headers.get(b"authorization", b""))

        async def send_with_id(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = [*message["headers"], (b"x-request-id", request_id.encode())]
                message = {**message, "headers": named}
            await send(message)

        if caller is None:
            await send_with_id({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, receive, send_with_id)
        seconds = time.perf_counter() - began_at
        write_log_line(request_id, caller, scope["path"], status, seconds)
        count(scope["path"], status, seconds)
