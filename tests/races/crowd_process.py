"""One process of a crowd: `crowd_process.py ROLE URI`. Reads its task, says "ready", starts at the next line.

It speaks JSON lines with the test that started it (`processes.py`).
"""

import asyncio
import json
import sys
from uuid import UUID

from races.crowd import at_once, booking_by, result_of, tally, warm
from races.hubbub import hubbub
from support.factories import Contact, MockExam
from tallybook.postgres.pool import Database


def _contact(contact_id):
    return Contact(UUID(contact_id), None, None, "")


def _exam(exam_id):
    return MockExam(UUID(exam_id), None, "", None, None, None, 0)


def _say(what):
    print(json.dumps(what), flush=True)


async def _go():
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)


async def book(db, task):
    """Everybody of the task books its exam at once; the tally."""
    exam = _exam(task["exam"])
    askings = [booking_by(db, _contact(each), exam) for each in task["contacts"]]
    await _go()
    _say(tally(await at_once(*askings)))


async def book_until_killed(db, task):
    """Eight at a time book, each answered booking is told at once."""
    exams, waiting = [_exam(each) for each in task["exams"]], iter(task["contacts"])
    await _go()

    async def work():
        for contact_id in waiting:
            for exam in exams:
                told = await result_of(booking_by(db, _contact(contact_id), exam))
                _say([told.word, told.data.get("id")])

    await asyncio.gather(*(work() for _ in range(8)))


async def hold(db, task):
    """Books inside a transaction that never ends by itself."""
    async with db.connection() as connection:
        await connection.execute("begin")
        cursor = await connection.execute(task["statement"])
        ((booking_id,),) = await cursor.fetchall()
        _say(str(booking_id))
        await asyncio.Event().wait()


async def interleave(db, task):
    """Everything at random for a while; the tally of what was told."""
    await _go()
    _say(await hubbub(db, task))


async def _main(role, uri):
    size = 8
    db = Database(uri, size=size, acquire_timeout_s=30.0)
    task = json.loads(await asyncio.to_thread(sys.stdin.readline))
    await warm(db, size)
    roles = {"book": book, "book-until-killed": book_until_killed, "hold": hold, "interleave": interleave}
    await roles[role](db, task)
    await db.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
