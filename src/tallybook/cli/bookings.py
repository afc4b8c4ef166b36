"""The commands `tallybook booking ...`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.contacts import ENTRY_COLUMNS, Contact, checked
from tallybook.cli.session import AsJson, DryRun, actor, print_fields, print_json, print_table, with_parts
from tallybook.domain.errors import ValidationError

if TYPE_CHECKING:
    from tallybook.wiring import Parts

Booking = Annotated[str, typer.Argument(help="HubSpot id, UUID or booking_id")]
Exam = Annotated[str, typer.Argument(help="HubSpot id or UUID of a mock exam")]


def show(booking: Booking, *, as_json: AsJson = False) -> None:
    """Show a booking with its session, contact and ledger entries."""
    from tallybook.usecases.show_any_booking import show_any_booking

    async def work(parts: Parts) -> dict[str, Any]:
        return await show_any_booking(parts.db, booking=booking)

    found = with_parts(work)
    if as_json:
        print_json(found)
        return
    entries = found.pop("entries")
    print_fields(found)
    if entries:
        print("\nentries")
        print_table(entries, ENTRY_COLUMNS)


def create(
    contact: Contact,
    exam: Exam,
    *,
    override: Annotated[
        bool, typer.Option("--override", help="Waive credit, closing time and prerequisites.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why; needed with --override.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Book a seat for a contact, paid with a credit unless --override."""
    from tallybook.domain.callers import Caller, CallerKind
    from tallybook.usecases.book_seat import book_seat, book_with_override
    from tallybook.usecases.grant_credits import find_contact

    if override != bool(reason and reason.strip()):
        raise ValidationError("--override and --reason go together.")

    async def work(parts: Parts) -> bytes:
        contact_id = await find_contact(parts.db, checked(contact))
        if reason:
            answer = await book_with_override(
                parts.db,
                contact_id=str(contact_id),
                mock_exam_id=exam,
                actor=actor(),
                reason=reason.strip(),
                dry_run=dry_run,
            )
        else:
            caller = Caller(CallerKind.CLI, actor(), contact_id=contact_id)
            answer = await book_seat(
                parts.db, parts.students, caller=caller, pair=None, mock_exam_id=exam, dry_run=dry_run
            )
        return answer.data

    _show(with_parts(work, decides=not dry_run), as_json=as_json)


def cancel(
    booking: Booking,
    *,
    refund: Annotated[
        bool | None,
        typer.Option(
            "--refund/--no-refund", help="Give the credit back or keep it; default: the catalog's rule."
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept with the booking.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Cancel a booking."""
    from tallybook.usecases.cancel_booking import cancel_as_staff

    async def work(parts: Parts) -> bytes:
        answer = await cancel_as_staff(
            parts.db, booking=booking, actor=actor(), reason=reason, refund=refund, dry_run=dry_run
        )
        return answer.data

    _show(with_parts(work, decides=not dry_run), as_json=as_json)


def move(booking: Booking, exam: Exam, *, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Move a booking to another mock exam of its type, seat for seat."""
    from tallybook.usecases.move_booking import move_as_staff

    async def work(parts: Parts) -> bytes:
        answer = await move_as_staff(
            parts.db, booking=booking, mock_exam_id=exam, actor=actor(), dry_run=dry_run
        )
        return answer.data

    _show(with_parts(work, decides=not dry_run), as_json=as_json)


def _show(data: bytes, *, as_json: bool) -> None:
    found = json.loads(data)
    if as_json:
        print_json(found)
    else:
        print_fields(found)
