"""The student addresses: each takes the request apart, calls one use case and wraps its answer."""

from __future__ import annotations

import msgspec

from tallybook.api import old_names
from tallybook.api.calendar_file import calendar_file
from tallybook.api.replies import Reply, success
from tallybook.api.route import Call
from tallybook.api.services import Services
from tallybook.api.student_pair import idempotency_of, pair_of
from tallybook.domain.bookings import parse_hand, parse_location
from tallybook.domain.callers import CallerKind
from tallybook.postgres.answers import Answer, refusal
from tallybook.usecases.book_seat import book_seat
from tallybook.usecases.cancel_booking import cancel_booking, preview_cancellation
from tallybook.usecases.cancel_bookings import cancel_bookings
from tallybook.usecases.check_credits import check_credits
from tallybook.usecases.list_bookings import list_bookings
from tallybook.usecases.list_mock_exams import list_mock_exams, show_capacity
from tallybook.usecases.move_booking import move_booking
from tallybook.usecases.set_ndecc_date import set_ndecc_date
from tallybook.usecases.show_booking import show_booking
from tallybook.usecases.show_credits import show_credits, usage_history
from tallybook.usecases.show_student import show_student

DISCUSSION = "Mock Discussion"


def _reply(answer: Answer) -> Reply:
    return success(answer.data, replayed=answer.replayed, lookup=answer.lookup)


def _pair_mode(call: Call) -> bool:
    return call.caller.kind is CallerKind.PAIR


async def validate_credits(services: Services, call: Call) -> Reply:
    """Whether the student can book this type."""
    deps = services.deps
    answer = await check_credits(
        deps.db, deps.students, caller=call.caller, pair=pair_of(call), mock_type=call.body.mock_type
    )
    data = old_names.of_a_check(answer.data) if _pair_mode(call) else answer.data
    return success(data, lookup=answer.lookup)


async def validate_discussion_credits(services: Services, call: Call) -> Reply:
    """Whether the student can book a discussion."""
    deps = services.deps
    answer = await check_credits(
        deps.db, deps.students, caller=call.caller, pair=pair_of(call), mock_type=DISCUSSION
    )
    data = old_names.of_a_discussion_check(answer.data) if _pair_mode(call) else answer.data
    return success(data, lookup=answer.lookup)


async def create_booking(services: Services, call: Call) -> Reply:
    """Book a seat."""
    body, places = call.body, services.deps.catalog.places
    location, hand = body.attending_location, body.dominant_hand
    return await _book(
        services,
        call,
        attending_location=parse_location(location, places=places) if location else None,
        dominant_hand=None if hand in (None, "") else parse_hand(hand),
    )


async def create_discussion_booking(services: Services, call: Call) -> Reply:
    """Book a seat in a discussion, which asks for nothing more."""
    return await _book(services, call, attending_location=None, dominant_hand=None)


async def _book(
    services: Services, call: Call, *, attending_location: str | None, dominant_hand: bool | None
) -> Reply:
    deps, body = services.deps, call.body
    answer = await book_seat(
        deps.db,
        deps.students,
        caller=call.caller,
        pair=pair_of(call),
        mock_exam_id=body.mock_exam_id,
        attending_location=attending_location,
        dominant_hand=dominant_hand,
        dry_run=body.dry_run,
        idempotency=None if body.dry_run else idempotency_of(call),
    )
    return success(
        old_names.of_a_seat(answer.data) if _pair_mode(call) else answer.data,
        status=201 if answer.outcome == "created" else 200,
        replayed=answer.replayed,
        lookup=answer.lookup,
    )


async def cancel(services: Services, call: Call) -> Reply:
    """Cancel one booking."""
    deps = services.deps
    answer = await cancel_booking(
        deps.db,
        deps.students,
        caller=call.caller,
        pair=pair_of(call),
        booking=call.params["booking"],
        reason=call.body.reason,
        idempotency=idempotency_of(call),
    )
    return _reply(answer)


async def preview(services: Services, call: Call) -> Reply:
    """What cancelling would give back."""
    deps = services.deps
    answer = await preview_cancellation(
        deps.db, deps.students, caller=call.caller, pair=pair_of(call), booking=call.params["booking"]
    )
    return _reply(answer)


async def cancel_several(services: Services, call: Call) -> Reply:
    """Cancel several bookings, each with its own result."""
    deps = services.deps
    answer = await cancel_bookings(
        deps.db,
        deps.students,
        caller=call.caller,
        pair=pair_of(call),
        bookings=call.body.booking_ids,
        reason=call.body.reason,
        idempotency=idempotency_of(call),
    )
    data = _with_messages(answer.data)
    return success(data, replayed=answer.replayed, lookup=answer.lookup)


def _with_messages(data: bytes) -> bytes:
    """The results of a list with a sentence for people beside each code."""
    listed = msgspec.json.decode(data)
    refused = [item["error"] for item in listed["results"] if not item["success"]]
    if not refused:
        return data
    for error in refused:
        error["message"] = refusal(error["code"], error["details"]).message
    return msgspec.json.encode(listed)


async def move(services: Services, call: Call) -> Reply:
    """Move a booking to another session of its type."""
    deps, body = services.deps, call.body
    answer = await move_booking(
        deps.db,
        deps.students,
        caller=call.caller,
        pair=pair_of(call),
        booking=call.params["booking"],
        mock_exam_id=body.mock_exam_id,
        dry_run=body.dry_run,
        idempotency=None if body.dry_run else idempotency_of(call),
    )
    return _reply(answer)


async def bookings(services: Services, call: Call) -> Reply:
    """A page of the student's bookings."""
    deps, query = services.deps, call.query
    answer = await list_bookings(
        deps.db,
        deps.students,
        caller=call.caller,
        pair=pair_of(call),
        filter=query.filter,
        page=query.page,
        limit=query.limit,
    )
    return _reply(answer)


async def booking(services: Services, call: Call) -> Reply:
    """One booking."""
    return _reply(await _show_booking(services, call))


async def booking_file(services: Services, call: Call) -> Reply:
    """One booking for a calendar."""
    answer = await _show_booking(services, call)
    headers = (
        (b"content-type", b"text/calendar; charset=utf-8"),
        (b"content-disposition", b'attachment; filename="booking.ics"'),
    )
    return Reply(200, calendar_file(answer.data, now=services.deps.clock()), headers, answer.lookup)


async def _show_booking(services: Services, call: Call) -> Answer:
    deps = services.deps
    return await show_booking(
        deps.db, deps.students, caller=call.caller, pair=pair_of(call), booking=call.params["booking"]
    )


async def me(services: Services, call: Call) -> Reply:
    """The student's own profile and credits."""
    deps = services.deps
    return _reply(await show_student(deps.db, deps.students, caller=call.caller, pair=pair_of(call)))


async def update_ndecc_date(services: Services, call: Call) -> Reply:
    """Set the date of the student's NDECC exam."""
    deps = services.deps
    answer = await set_ndecc_date(
        deps.db,
        deps.students,
        caller=call.caller,
        pair=pair_of(call),
        ndecc_exam_date=call.body.ndecc_exam_date,
        time_zone=deps.config.time_zone,
    )
    return _reply(answer)


async def available(services: Services, call: Call) -> Reply:
    """Sessions of a type that can be booked."""
    query = call.query
    answer = await list_mock_exams(
        services.deps.db, caller=call.caller, mock_type=query.mock_type, include_full=query.include_capacity
    )
    return success(answer.data)


async def available_discussions(services: Services, call: Call) -> Reply:
    """Discussions that can be booked."""
    answer = await list_mock_exams(
        services.deps.db, caller=call.caller, mock_type=DISCUSSION, include_full=call.query.include_capacity
    )
    return success(answer.data)


async def capacity(services: Services, call: Call) -> Reply:
    """How many seats are left."""
    answer = await show_capacity(services.deps.db, caller=call.caller, mock_exam_id=call.params["mock_exam"])
    return success(answer.data)


async def credits_of_student(services: Services, call: Call) -> Reply:
    """All balances of the student; `refresh` asks past a display cache, where one is on."""
    deps = services.deps
    answer = await show_credits(
        deps.db,
        deps.students,
        caller=call.caller,
        pair=pair_of(call),
        cache=deps.credits_cache,
        refresh=call.query.refresh,
    )
    return _reply(answer)


async def usage(services: Services, call: Call) -> Reply:
    """The student's ledger, newest first."""
    deps, query = services.deps, call.query
    answer = await usage_history(
        deps.db,
        deps.students,
        caller=call.caller,
        pair=pair_of(call),
        page=query.page,
        per_page=query.per_page,
        action_filter=query.action_filter,
    )
    return _reply(answer)
