"""docs/how-to/migrate.md, followed word by word: watch, compare, cut over, cut back."""

import asyncio
import re
import shlex
from pathlib import Path

import pytest

from support.commands import SECRET_KEY, CommandLine
from support.factories import cancel
from support.old_system import TABLES, Old, some_people
from support.push_world import TOKEN, world

__all__ = ["world"]

GUIDE = (Path(__file__).parents[2] / "docs/how-to/migrate.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^( *)```(sh|sql)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def section(number):
    """The blocks of one numbered section: (language, text)."""
    text = re.search(rf"^## {number}\. .*?(?=^## )", GUIDE, re.MULTILINE | re.DOTALL)[0]
    return [(language, body) for _, language, body in FENCE.findall(text)]


@pytest.fixture
async def old(world):
    """The old tables in the same database, and people, sessions and bookings in both systems."""
    await world.rows(TABLES)
    return Old(world)


class Reader:
    """Somebody who types what the guide says."""

    def __init__(self, folder, world):
        self.world = world
        self.tallybook = CommandLine(
            folder,
            {
                "DATABASE_URL": world.uri,
                "TALLYBOOK_SECRET_KEY": SECRET_KEY,
                "TALLYBOOK_LOGIN_CODE": "none",
                "HUBSPOT_BASE_URL": world.portal.url,
                "HS_PRIVATE_APP_TOKEN": TOKEN,
            },
        )
        self.said = {}

    async def follow(self, number):
        for language, body in section(number):
            if language == "sql":
                await self.world.rows(re.sub(r"\s*$", "", body))
                continue
            for line in body.split("\n"):
                await self._type(line.strip())

    async def _type(self, line):
        words = shlex.split(line)
        if not words:
            return
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.tallybook.settings[name] = value
        elif words[0] == "unset":
            del self.tallybook.settings[words[1]]
        else:
            assert words[0] == "tallybook", line
            # This portal's sign-in needs no code, which doctor calls a red line.
            code = 1 if words[1] == "doctor" else 0
            done = await asyncio.to_thread(self.tallybook, *words[1:], code=code)
            self.said[line] = done.stdout


async def test_the_guide_can_be_followed_to_the_end_and_back(old, world, tmp_path):
    """Every command runs, in this order; at each stage both systems have the numbers the guide promises."""
    people = await some_people(old)
    exam = await old.remote.exam()
    seat = await old.booking(people[1], exam, number=2)
    reader = Reader(tmp_path, world)

    await reader.follow(1)
    assert await old.numbers(2, "sj_credits", "cs_credits") == (4, 0)
    await reader.follow(2)
    (told,) = [text for line, text in reader.said.items() if "--dry-run" in line]
    assert "contact 1600002: sj_credits: database 1, HubSpot 4" in told
    assert await old.numbers(2, "sj_credits", "cs_credits") == (4, 0)

    await reader.follow(3)
    assert await old.numbers(2, "sj_credits", "cs_credits") == (1, 2)
    await old.expect_in_step()

    # A day of the new system, then back.
    await cancel(world.db, None, seat["id"])
    assert await old.numbers(2, "sj_credits") == (2,)
    await reader.follow(4)
    assert await world.rows(
        "select sj_credits, cs_credits from hubspot_sync.hubspot_contact_credits where student_id = '1600002'"
    ) == [(2, 2)]
    assert await world.rows(
        "select id, is_active, hubspot_id is not null from hubspot_sync.hubspot_bookings"
    ) == [(seat["id"], "Cancelled", True)]
    assert await world.value("select count(*) from hubspot_sync.hubspot_contact_credits") == 5


def test_the_table_has_every_line_the_contract_lists():
    """What changes on purpose is told on purpose."""
    lines = [line for line in GUIDE.splitlines() if line.startswith("| ")][1:]
    for words in (
        *(
            "PostgreSQL decides",
            "503 until the database is back",
            "outbox",
            "row locks",
            "`tallybook`; its views",
        ),
        *(
            "feature flags",
            "STUDENT_NOT_FOUND",
            "`idempotent: true`",
            "UUIDs",
            "merges",
            "`DATABASE_URL` is needed",
        ),
    ):
        assert sum(words in line for line in lines) == 1, words
