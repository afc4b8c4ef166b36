"""The commands `tallybook exam ...`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.session import AsJson, actor, print_fields, print_json, print_table, with_parts

if TYPE_CHECKING:
    from datetime import datetime

    from tallybook.wiring import Parts

_COLUMNS = ("exam_date", "start_time", "end_time", "mock_type", "mock_set", "location", "booked", "capacity",
            "activation", "id")  # fmt: skip


def list_exams(
    *,
    mock_type: Annotated[str | None, typer.Option("--type", help="Only this mock type.")] = None,
    past: Annotated[bool, typer.Option("--past", help="Also those that are over.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 200,
    as_json: AsJson = False,
) -> None:
    """List mock exams, soonest first."""
    from tallybook.usecases.list_all_mock_exams import list_all_mock_exams

    async def work(parts: Parts) -> list[dict[str, Any]]:
        name = None if mock_type is None else parts.catalog.mock_type(mock_type).name
        return await list_all_mock_exams(parts.db, mock_type=name, past=past, limit=limit)

    found = with_parts(work)
    if as_json:
        print_json(found)
    elif found:
        print_table(found, _COLUMNS)
    else:
        print("There are no mock exams.")


def create(
    *,
    mock_type: Annotated[str, typer.Option("--type", help="A mock type of the catalog.")],
    exam_date: Annotated[str, typer.Option("--date", help="YYYY-MM-DD, where it takes place.")],
    start: Annotated[str, typer.Option(help="HH:MM, where it takes place.")],
    end: Annotated[str, typer.Option(help="HH:MM, where it takes place.")],
    location: Annotated[str, typer.Option(help="A place of the catalog.")],
    capacity: Annotated[int, typer.Option(help="Seats, 1 to 1000.")],
    mock_set: Annotated[str | None, typer.Option("--set", help="A letter A to H.")] = None,
    address: Annotated[str | None, typer.Option(help="Where exactly.")] = None,
    opens_at: Annotated[
        str | None, typer.Option(help="'YYYY-MM-DD HH:MM' there: not bookable before.")
    ] = None,
    inactive: Annotated[bool, typer.Option("--inactive", help="Not bookable until activated.")] = False,
    prerequisite: Annotated[
        list[str] | None,
        typer.Option(help="A mock exam a student needs first (UUID or HubSpot id); repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a mock exam."""
    from tallybook.domain.errors import ValidationError
    from tallybook.domain.mock_exams import Opening, parse_session
    from tallybook.usecases.create_mock_exam import create_mock_exam

    if inactive and opens_at is not None:
        raise ValidationError("--inactive and --opens-at exclude each other.")
    opening = Opening.INACTIVE if inactive else Opening.SCHEDULED if opens_at else Opening.ACTIVE

    async def work(parts: Parts) -> dict[str, Any]:
        session = parse_session(
            parts.catalog,
            mock_type=mock_type,
            exam_on=exam_date,
            start_time=start,
            end_time=end,
            location=location,
            capacity=capacity,
            mock_set=mock_set,
            address=address,
        )
        answer = await create_mock_exam(
            parts.db,
            session=session,
            actor=actor(),
            opening=opening,
            opens_at=None if opens_at is None else _instant(opens_at, session.time_zone),
            prerequisites=prerequisite or (),
        )
        return dict(json.loads(answer.data))

    created = with_parts(work, decides=True)
    if as_json:
        print_json(created)
    else:
        print_fields(created)


def _instant(text: str, time_zone: str) -> datetime:
    from tallybook.domain.clock import local_instant, parse_date, parse_time

    day, _, hour = text.strip().replace("T", " ").partition(" ")
    on, at = parse_date(day, field="opens_at"), parse_time(hour.strip(), field="opens_at")
    return local_instant(on, at, time_zone, field="opens_at")
