"""Booking, listing, cancelling and moving when all is well: each answer field by field."""

import re
from datetime import UTC

import icalendar
import pytest

from e2e.service import data_of, is_instant
from e2e.shapes import BOOKED, CANCELLED, TYPES, UUID
from support.factories import balances, make_mock_exam, seats_taken


@pytest.fixture(scope="module")
async def ada(service):
    return await service.student(
        credits={"sj_credits": 20, "cs_credits": 5, "sjmini_credits": 3, "mock_discussion_token": 2}
    )


async def book(service, student, exam, **more):
    return await service.http.post(
        "/api/bookings/create", json={"mock_exam_id": str(exam.id)} | more, headers=student.headers
    )


async def test_a_booking_is_answered_with_everything_about_the_seat(service, ada):
    """201, the id text `Type-Student-Month D, YYYY`, the token spent and what is left."""
    exam = await make_mock_exam(service.db, days=30, location="Vancouver", hubspot_id="880002")
    before = (await balances(service.db, ada.contact))["sj_credits"]
    answer = await book(service, ada, exam, attending_location="vancouver", mock_exam_id="880002")
    data = data_of(answer, 201)
    assert set(data) - {"hubspot_id"} == BOOKED
    on = exam.exam_on
    assert (
        data["booking_id"]
        == f"Situational Judgment-{ada.contact.student_id}-{on.strftime('%B')} {on.day}, {on.year}"
    )
    assert data["booking_record_id"] == data["booking_id"]
    assert UUID.fullmatch(data["id"])
    assert (data["mock_exam_id"], data["exam_date"]) == ("880002", on.isoformat())
    assert (data["start_time"], data["end_time"], data["time_zone"]) == (
        "09:00",
        "12:00",
        "America/Vancouver",
    )
    assert data["token_used"] == "Situational Judgment Token"
    assert data["credits_after"]["sj_credits"] == before - 1
    assert set(data["credits_after"]) == TYPES
    assert await seats_taken(service.db, exam) == 1


async def test_the_specific_credit_is_spent_before_the_shared_one(service):
    """One, then the other, then nothing."""
    student = await service.student(credits={"cs_credits": 1, "shared_mock_credits": 1})
    tokens = []
    for days in (50, 51):
        exam = await make_mock_exam(service.db, mock_type="Clinical Skills", days=days)
        tokens.append(data_of(await book(service, student, exam, dominant_hand="right"), 201)["token_used"])
    assert tokens == ["Clinical Skills Token", "Shared Token"]
    exam = await make_mock_exam(service.db, mock_type="Clinical Skills", days=52)
    assert (await book(service, student, exam)).status_code == 402


async def test_a_discussion_has_addresses_of_its_own(service, ada):
    """Listed, booked and paid for with its token; its derived label is `idem_disc_`."""
    exam = await make_mock_exam(service.db, mock_type="Mock Discussion", days=31, location="Online")
    listed = data_of(await service.http.get("/api/mock-discussions/available"))
    assert [each["id"] for each in listed] == [str(exam.id)]
    answer = await service.http.post(
        "/api/mock-discussions/create-booking", json={"mock_exam_id": str(exam.id)}, headers=ada.headers
    )
    data = data_of(answer, 201)
    assert data["token_used"] == "Mock Discussion Token"
    ((label,),) = await service.run(
        "select idempotency_key from tallybook.bookings where id = %s", data["id"]
    )
    assert re.fullmatch(r"idem_disc_[0-9a-f]{32}", label)


async def test_a_dry_run_says_what_would_happen_and_does_nothing(service, ada):
    """Token and balance as they would be; no ids, no seat, no entry; a key beside it is not used up."""
    exam = await make_mock_exam(service.db, days=32)
    before = await service.fingerprint()
    answer = await service.http.post(
        "/api/bookings/create",
        json={"mock_exam_id": str(exam.id), "dry_run": True},
        headers=ada.headers | {"idempotency-key": "dry"},
    )
    data = data_of(answer)
    assert set(data) == (BOOKED - {"booking_id", "booking_record_id", "id"}) | {"dry_run"}
    assert data["dry_run"] is True
    assert await service.fingerprint() == before
    real = await service.http.post(
        "/api/bookings/create",
        json={"mock_exam_id": str(exam.id)},
        headers=ada.headers | {"idempotency-key": "dry"},
    )
    assert data_of(real, 201)["credits_after"] == data["credits_after"]


async def test_bookings_are_listed_page_by_page(service):
    """Upcoming soonest first, past and cancelled apart, the balances beside them."""
    student = await service.student(credits={"sj_credits": 5})
    booked = []
    for days in (60, 62, 61):
        exam = await make_mock_exam(service.db, days=days)
        booked.append(data_of(await book(service, student, exam), 201))
    data_of(
        await service.http.request(
            "DELETE", f"/api/bookings/{booked[2]['id']}", json={}, headers=student.headers
        )
    )

    async def listed(query):
        return data_of(await service.http.get(f"/api/bookings/list?{query}", headers=student.headers))

    upcoming = await listed("filter=upcoming")
    assert set(upcoming) == {"bookings", "pagination", "credits"}
    assert [each["id"] for each in upcoming["bookings"]] == [booked[0]["id"], booked[1]["id"]]
    assert set(upcoming["bookings"][0]) - {"hubspot_id"} == (BOOKED - {"credits_after"}) | {
        "status",
        "is_active",
        "mock_set",
        "address",
        "attendance",
        "attending_location",
        "dominant_hand",
        "created_at",
        "cancelled_at",
    }
    assert upcoming["credits"]["sj_credits"] == 3
    past = await listed("filter=past")
    assert [(each["id"], each["status"]) for each in past["bookings"]] == [(booked[2]["id"], "Cancelled")]
    second = await listed("filter=all&page=2&limit=2")
    assert second["pagination"] == {
        "current_page": 2,
        "total_pages": 2,
        "total_bookings": 3,
        "has_next": False,
        "has_previous": True,
    }
    assert len(second["bookings"]) == 1


async def test_a_booking_is_found_by_all_its_ids(service, ada):
    """UUID, HubSpot id and booking_id, the last with its spaces and comma."""
    exam = await make_mock_exam(service.db, days=33)
    booked = data_of(await book(service, ada, exam), 201)
    await service.run("update tallybook.bookings set hubspot_id = '990001' where id = %s", booked["id"])
    for ref in (booked["id"], "990001", booked["booking_id"]):
        shown = data_of(await service.http.get(f"/api/bookings/{ref}", headers=ada.headers))
        assert (shown["id"], shown["hubspot_id"], shown["status"]) == (booked["id"], "990001", "Active")


async def test_a_booking_goes_into_a_calendar(service, ada):
    """The file names the session at its instant."""
    exam = await make_mock_exam(service.db, days=34)
    booked = data_of(await book(service, ada, exam), 201)
    answer = await service.http.get(f"/api/bookings/{booked['id']}.ics", headers=ada.headers)
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    assert "x-request-id" in answer.headers
    (event,) = icalendar.Calendar.from_ical(answer.content).walk("VEVENT")
    assert event.decoded("dtstart").astimezone(UTC) == exam.starts_at
    assert event.decoded("dtend").astimezone(UTC) == exam.ends_at


async def test_cancelling_is_foretold_done_once_and_then_recognised(service, ada):
    """The preview promises what the cancellation gives; a second one changes nothing and says the same."""
    exam = await make_mock_exam(service.db, days=35)
    booked = data_of(await book(service, ada, exam), 201)
    address = f"/api/bookings/{booked['booking_id']}"
    foretold = data_of(await service.http.get(f"{address}/cancellation", headers=ada.headers))
    assert (foretold["allowed"], foretold["credits_restored"], foretold["credit_type"]) == (
        True,
        1,
        "sj_credits",
    )
    done = await service.http.request("DELETE", address, json={"reason": "ill\nsorry"}, headers=ada.headers)
    data = data_of(done)
    assert set(data) == CANCELLED
    assert (data["credits_restored"], data["credit_type"], data["student_id"]) == (
        1,
        "sj_credits",
        ada.contact.student_id,
    )
    assert is_instant(data["cancelled_at"])
    assert data["credits_after"]["sj_credits"] == booked["credits_after"]["sj_credits"] + 1
    again = data_of(await service.http.request("DELETE", address, headers=ada.headers))
    assert again == data | {"idempotent": True}
    assert await seats_taken(service.db, exam) == 0


async def test_several_bookings_are_cancelled_with_a_result_each(service, ada):
    """The good ones go through; the others are named with their code and a sentence."""
    exams = [await make_mock_exam(service.db, days=days) for days in (36, 37)]
    first, second = [data_of(await book(service, ada, exam), 201) for exam in exams]
    answer = await service.http.post(
        "/api/bookings/batch-cancel",
        json={"booking_ids": [first["id"], "no such booking", second["booking_id"]]},
        headers=ada.headers,
    )
    data = data_of(answer)
    assert data["summary"] == {"total": 3, "cancelled": 2, "failed": 1}
    assert [each["success"] for each in data["results"]] == [True, False, True]
    assert set(data["results"][0]["data"]) == CANCELLED
    assert set(data["results"][1]["error"]) == {"code", "message", "details"}
    assert data["results"][1]["error"]["code"] == "BOOKING_NOT_FOUND"
    assert (
        data["credits_after"]["sj_credits"]
        == (await balances(service.db, ada.contact))["sj_credits"]
        == second["credits_after"]["sj_credits"] + 2
    )


async def test_moving_keeps_the_ids_and_the_credit(service, ada):
    """Seat for seat, nothing paid, nothing given back; doing it twice is recognised."""
    here, there = [await make_mock_exam(service.db, days=days) for days in (38, 39)]
    booked = data_of(await book(service, ada, here), 201)
    address = f"/api/bookings/{booked['id']}/move"
    trial = await service.http.post(
        address, json={"mock_exam_id": str(there.id), "dry_run": True}, headers=ada.headers
    )
    assert data_of(trial)["dry_run"] is True
    assert await seats_taken(service.db, there) == 0
    moved = data_of(
        await service.http.post(address, json={"mock_exam_id": str(there.id)}, headers=ada.headers)
    )
    assert set(moved) - {"hubspot_id", "moved_from_mock_exam_id"} == BOOKED
    assert (moved["id"], moved["booking_id"]) == (booked["id"], booked["booking_id"])
    assert moved["mock_exam_id"] == str(there.id)
    assert moved["credits_after"] == booked["credits_after"]
    assert (await seats_taken(service.db, here), await seats_taken(service.db, there)) == (0, 1)
    again = await service.http.post(address, json={"mock_exam_id": str(there.id)}, headers=ada.headers)
    assert data_of(again)["idempotent"] is True
