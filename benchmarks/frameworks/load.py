"""The load: 16 keep-alive connections that each send the next request when the answer is there."""

import asyncio
import json
import sys
import time

import uvloop

HEAD = (
    "POST /api/mock-exams/validate-credits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Authorization: Bearer tb_1_secret\r\nContent-Length: {}\r\n\r\n"
)


def request(number):
    student = number % 10_000
    body = json.dumps(
        {"student_id": f"{1_000_000 + student}", "email": f"s{student}@example.org", "mock_type": "Mini-mock"}
    )
    return (HEAD.format(len(body)) + body).encode()


class Connection(asyncio.Protocol):
    def __init__(self, first, ends_at, done):
        self.next, self.ends_at, self.done = first, ends_at, done
        self.answered, self.received = 0, b""

    def connection_made(self, transport):
        self.transport = transport
        self.send()

    def send(self):
        self.transport.write(request(self.next))
        self.next += 16

    def data_received(self, data):
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        if len(body) < length:
            return
        assert head.startswith(b"HTTP/1.1 200 "), self.received
        assert b'"eligible":true' in body, body
        self.answered, self.received = self.answered + 1, b""
        if time.monotonic() < self.ends_at:
            self.send()
        else:
            self.done.set_result(self.answered)
            self.transport.close()

    def connection_lost(self, _error):
        if not self.done.done():
            self.done.set_exception(ConnectionError("the server closed the connection"))


async def main(port, seconds):
    loop = asyncio.get_running_loop()
    began_at = time.monotonic()
    done = [loop.create_future() for _ in range(16)]
    for number, future in enumerate(done):
        await loop.create_connection(
            lambda number=number, future=future: Connection(number, began_at + seconds, future),
            "127.0.0.1",
            port,
        )
    answered = sum(await asyncio.gather(*done))
    print(json.dumps({"answered": answered, "seconds": time.monotonic() - began_at}))


uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
