"""The commands `tallybook sync ...` by which a person decides: conflicts, dead letters, paused lanes."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.session import AsJson, actor, print_json, print_table, with_parts
from tallybook.domain.errors import ValidationError

if TYPE_CHECKING:
    from tallybook.postgres.answers import Answer
    from tallybook.wiring import Parts

_PAGE = 100
_CONFLICTS = ("id", "object_type", "label", "field", "kind", "ours", "theirs", "freezes", "opened_at")
_LETTERS = ("id", "type", "label", "hubspot_id", "attempts", "dead_at", "words")

Page = Annotated[int, typer.Option(min=1, help=f"Which page, of {_PAGE} each.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit log.")]
LetterId = Annotated[str, typer.Argument(metavar="ID", help="As shown by: tallybook sync dead")]


class Choice(StrEnum):
    """The words of the argument; the use case knows what they mean."""

    OURS = "ours"
    THEIRS = "theirs"
    VALUE = "value"
    DISMISS = "dismiss"


class Lane(StrEnum):
    """The lanes of the mirror."""

    BOOKING = "booking"
    CONTACT = "contact"
    MOCK_EXAM = "mock_exam"
    PULL = "pull"


def conflicts(
    *,
    page: Page = 1,
    with_resolved: Annotated[bool, typer.Option("--all", help="Also those that are resolved.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what could not be merged: both values, and where."""
    from tallybook.usecases.list_conflicts import list_conflicts

    async def work(parts: Parts) -> dict[str, Any]:
        return await list_conflicts(parts.db, with_resolved=with_resolved, page=page, limit=_PAGE)

    found = with_parts(work)
    _show(found, "conflicts", _CONFLICTS, as_json=as_json, none="There are no conflicts.")


def resolve(
    conflict_id: Annotated[
        int, typer.Argument(metavar="ID", min=1, help="As shown by: tallybook sync conflicts")
    ],
    choice: Annotated[Choice, typer.Argument(help="Which value holds from now on, on both sides.")],
    value: Annotated[str | None, typer.Argument(help="With the choice 'value': which.")] = None,
    *,
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Settle a conflict."""
    from tallybook.usecases import resolve_conflict as use_case

    async def work(parts: Parts) -> Answer:
        return await use_case.resolve_conflict(
            parts.db,
            conflict_id=conflict_id,
            choice=use_case.Choice(choice.value),
            value=value,
            reason=reason,
            actor=actor(),
        )

    done = with_parts(work)
    if as_json:
        print_json(json.loads(done.data))
    else:
        print(f"Conflict {conflict_id} {'was' if done.outcome == 'already' else 'is now'} resolved.")


def dead(*, page: Page = 1, as_json: AsJson = False) -> None:
    """List dead letters: what HubSpot refuses, in its own words, or what could not be read from it."""
    from tallybook.usecases.list_dead_letters import list_dead_letters

    async def work(parts: Parts) -> dict[str, Any]:
        return await list_dead_letters(parts.db, page=page, limit=_PAGE)

    found = with_parts(work)
    _show(found, "dead_letters", _LETTERS, as_json=as_json, none="There are no dead letters.")


def retry(
    letter_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="As shown by: tallybook sync dead")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try a dead letter again, or all of them."""
    from tallybook.usecases.retry_dead_letters import retry_all_dead_letters, retry_dead_letter

    if everything == (letter_id is not None):
        raise ValidationError("Name one dead letter, or give --all.", field="ID", problem="one of the two")

    async def work(parts: Parts) -> int:
        if letter_id is None:
            return await retry_all_dead_letters(parts.db)
        answer = await retry_dead_letter(parts.db, letter_type=None, letter_id=letter_id)
        return int(json.loads(answer.data)["retried"])

    number = with_parts(work)
    if as_json:
        print_json({"retried": number})
    else:
        print(f"{number} dead letters will be tried again.")


def discard(letter_id: LetterId, *, reason: Reason, as_json: AsJson = False) -> None:
    """Give a dead letter up: HubSpot keeps what it shows until the object changes again."""
    from tallybook.usecases.discard_dead_letter import discard_dead_letter

    async def work(parts: Parts) -> Answer:
        return await discard_dead_letter(
            parts.db, letter_type=None, letter_id=letter_id, reason=reason, actor=actor()
        )

    done = json.loads(with_parts(work).data)
    if as_json:
        print_json(done)
    else:
        print(f"Dead letter {letter_id} was discarded.")


def resume(
    lane: Annotated[Lane, typer.Argument(help="Which lane.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Let a paused lane go on at once."""
    from tallybook.usecases.resume_lane import resume_lane

    async def work(parts: Parts) -> Answer:
        return await resume_lane(parts.db, lane=lane.value, actor=actor())

    done = with_parts(work)
    if as_json:
        print_json(json.loads(done.data) | {"was_paused": done.outcome == "ok"})
    else:
        print(f"The lane {lane.value} {'goes on' if done.outcome == 'ok' else 'was not paused'}.")


def _show(found: dict[str, Any], name: str, columns: tuple[str, ...], *, as_json: bool, none: str) -> None:
    if as_json:
        print_json(found)
    elif not found[name]:
        print(none)
    else:
        print_table(found[name], columns)
        pages = -(-found["total"] // _PAGE)
        if pages > 1:
            print(f"Page {found['page']} of {pages}; the next one: --page {found['page'] + 1}")
