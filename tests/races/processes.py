"""Crowds that are processes of the operating system, with nothing in common but the database."""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent.parent


async def start(role, *arguments):
    """`crowd_process.py` in a role; it says when it is ready and waits for a line."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(TESTS / "races" / "crowd_process.py"),
        role,
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        limit=1 << 20,
    )


async def say(process, text):
    """Sends a line."""
    process.stdin.write(f"{text}\n".encode())
    await process.stdin.drain()


async def hear(process):
    """The next line, parsed."""
    line = await process.stdout.readline()
    assert line, f"the process ended with {await process.wait()}"
    return json.loads(line)


async def together(processes, tasks):
    """Hands each its task, waits until all are ready, lets them go at once; what each reported."""
    for process, task in zip(processes, tasks, strict=True):
        await say(process, json.dumps(task))
    for process in processes:
        assert await hear(process) == "ready"
    for process in processes:
        await say(process, "go")
    return await asyncio.gather(*(hear(process) for process in processes))


async def ended(processes):
    """All of them have ended by themselves."""
    for process in processes:
        process.stdin.close()
        assert await process.wait() == 0


async def crowd_of_processes(number, uri, exam, contacts):
    """The contacts book one exam from so many processes at once: how many were told what."""
    processes = [await start("book", uri) for _ in range(number)]
    tasks = [
        {"exam": str(exam.id), "contacts": [str(each.id) for each in contacts[n::number]]}
        for n in range(number)
    ]
    told = Counter()
    for each in await together(processes, tasks):
        told.update(each)
    await ended(processes)
    return told
