"""Credits on trust while Tallybook cannot be reached: bounded, written down, settled later exactly once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from tallybook.client.connection import Actions, Tallybook
from tallybook.client.errors import CreditsRefused
from tallybook.client.models import Action

# Tallybook keeps an idempotency key for 24 hours; later than that the ledger is asked first.
_KEY_LASTS = timedelta(hours=23)
_SCHEMA = """
create table if not exists uses (
    key text primary key, contact text not null, actions text not null, credits integer not null,
    taken_at text not null, tried_at text, settled_at text, problem text
)
"""


class Grace:
    """At most `most_credits` of unsettled work per action, kept in a file that several processes may share.

    `most_credits` is {action: credits}; `costs` the price list of the time before the outage
    (`Tallybook.costs`). What is not in either is not given.
    """

    def __init__(self, file: Path, *, most_credits: Mapping[str, int], costs: Mapping[str, int]) -> None:
        self._file = file
        self._most = dict(most_credits)
        self._costs = dict(costs)
        with closing(self._open()) as store, store:
            store.execute(_SCHEMA)

    def take(self, contact: str, actions: Actions) -> str | None:
        """Writes the use down and gives its key; None: not to be given. Safe in threads and processes."""
        uses = _uses(actions)
        if any(use.name not in self._most or use.name not in self._costs for use in uses):
            return None
        key = uuid4().hex
        with closing(self._open()) as store, store:
            store.execute("begin immediate")
            for use in uses:
                used = self._unsettled(store, use.name)
                wanted = sum(each.quantity for each in uses if each.name == use.name) * self._costs[use.name]
                if used + wanted > self._most[use.name]:
                    return None
            store.execute(
                "insert into uses (key, contact, actions, credits, taken_at) values (?, ?, ?, ?, ?)",
                (
                    key,
                    contact,
                    json.dumps([[use.name, use.quantity] for use in uses]),
                    sum(self._costs[use.name] * use.quantity for use in uses),
                    datetime.now(UTC).isoformat(),
                ),
            )
        return key

    def forget(self, key: str) -> None:
        """Strikes out a use whose work failed, unless it has been settled or is being settled."""
        with closing(self._open()) as store, store:
            store.execute(
                "delete from uses where key = ? and settled_at is null and tried_at is null", (key,)
            )

    def waiting(self) -> int:
        """How many uses have not been settled; those that were refused stay among them, for a person."""
        with closing(self._open()) as store:
            return int(store.execute("select count(*) from uses where settled_at is null").fetchone()[0])

    async def settle(self, client: Tallybook) -> int:
        """Charges what was given on trust, each use once; how many were settled. Repeat it until none waits.

        Raises NotReachable when Tallybook is still away. A use that cannot be paid stays, with the code in
        `problem`, and is tried again next time.
        """
        settled = 0
        with closing(self._open()) as store:
            rows = store.execute(
                "select key, contact, actions, tried_at from uses where settled_at is null order by taken_at"
            ).fetchall()
        for key, contact, actions, tried_at in rows:
            uses = [Action(name, quantity) for name, quantity in json.loads(actions)]
            problem, sent = None, tried_at is not None
            try:
                if not await self._is_charged(client, contact, key, uses, tried_at):
                    if not self._note(key, tried_at=tried_at or datetime.now(UTC).isoformat()):
                        continue
                    sent = False
                    await client.charge(contact, uses, key=key, metadata={"grace_key": key})
            except CreditsRefused as refused:
                problem = refused.code
            if problem is None:
                settled += 1
                self._note(key, settled_at=datetime.now(UTC).isoformat(), problem=None)
            else:
                # A refused charge stored nothing, so its key is as good as new; not to know says nothing.
                self._note(key, tried_at=tried_at if sent else None, problem=problem)
        return settled

    async def _is_charged(
        self, client: Tallybook, contact: str, key: str, uses: list[Action], tried_at: str | None
    ) -> bool:
        """Whether an attempt too old for its key had arrived after all."""
        if tried_at is None or datetime.now(UTC) - datetime.fromisoformat(tried_at) < _KEY_LASTS:
            return False
        page = 1
        while rows := await client.entries(contact, page=page, per_page=100, action=uses[0].name):
            if any((row["metadata"] or {}).get("grace_key") == key for row in rows):
                return True
            page += 1
        return False

    def _unsettled(self, store: sqlite3.Connection, action: str) -> int:
        rows = store.execute("select actions from uses where settled_at is null").fetchall()
        quantity = sum(n for (actions,) in rows for name, n in json.loads(actions) if name == action)
        return int(quantity) * self._costs[action]

    def _note(self, key: str, **columns: str | None) -> bool:
        """Whether the use is still there: its work may have failed meanwhile."""
        names = ", ".join(f"{name} = ?" for name in columns)
        with closing(self._open()) as store, store:
            done = store.execute(f"update uses set {names} where key = ?", (*columns.values(), key))  # noqa: S608
        return done.rowcount > 0

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._file, timeout=10.0, isolation_level=None)


def _uses(actions: Actions) -> list[Action]:
    several = [actions] if isinstance(actions, str | Action) else list(actions)
    return [Action(each) if isinstance(each, str) else each for each in several]
