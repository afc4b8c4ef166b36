"""Who a student is, what the student has and what can be booked: each answer field by field."""

from datetime import UTC, datetime, timedelta

import pytest

from e2e.service import data_of, is_instant, refused
from e2e.shapes import CHECK, STUDENT, TYPES, UUID, fields
from support.factories import balances, make_contact, make_mock_exam


@pytest.fixture(scope="module")
async def ada(service):
    return await service.student(
        credits={"sj_credits": 20, "cs_credits": 5, "sjmini_credits": 3, "mock_discussion_token": 2}
    )


async def book(service, student, exam, **more):
    return await service.http.post(
        "/api/bookings/create", json={"mock_exam_id": str(exam.id)} | more, headers=student.headers
    )


async def test_signing_in_gives_a_token_for_twelve_hours_and_the_profile(service):
    """The pair in any case and with spaces around it is the same pair."""
    contact = await make_contact(service.db, credits={"sj_credits": 2})
    answer = await service.http.post(
        "/api/user/login",
        json={"studentId": f" {contact.student_id.lower()} ", "email": f"  {contact.email.upper()} "},
    )
    data = data_of(answer)
    assert set(data) == STUDENT | {"token", "token_type", "expires_in", "expires_at"}
    assert (data["token_type"], data["expires_in"]) == ("Bearer", 12 * 3600)
    left = datetime.fromisoformat(data["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=11, minutes=59) < left <= timedelta(hours=12)
    assert (data["id"], data["student_id"], data["email"]) == (
        str(contact.id),
        contact.student_id,
        contact.email,
    )


async def test_the_profile_names_the_student_and_every_balance(service, ada):
    """`id` is the UUID; `contact_id` the HubSpot id once known."""
    data = data_of(await service.http.get("/api/user/me", headers=ada.headers))
    assert set(data) == STUDENT
    assert UUID.fullmatch(data["id"])
    assert data["contact_id"] == data["hubspot_id"] == ada.contact.hubspot_id
    assert (data["name"], data["firstname"], data["lastname"]) == ("Ada Lovelace", "Ada", "Lovelace")
    assert set(data["credits"]) == TYPES


@pytest.mark.parametrize(
    ("mock_type", "specific"), [("Situational Judgment", 5), ("Clinical Skills", 0), ("Mini-mock", 2)]
)
async def test_a_credit_check_says_what_can_be_spent_and_where_it_lies(service, mock_type, specific):
    """Eligible or not, it is a 200; shared credits count where the type may use them."""
    student = await service.student(credits={"sj_credits": 5, "sjmini_credits": 2, "shared_mock_credits": 3})
    answer = await service.http.post(
        "/api/mock-exams/validate-credits", json={"mock_type": mock_type}, headers=student.headers
    )
    data = data_of(answer)
    shared = 0 if mock_type == "Mini-mock" else 3
    assert set(data) == CHECK
    assert (data["eligible"], data["available_credits"], data["source"]) == (
        True,
        specific + shared,
        "database",
    )
    assert data["credit_breakdown"] == {"specific_credits": specific, "shared_credits": shared}
    assert (data["id"], data["contact_id"]) == (str(student.contact.id), student.contact.hubspot_id)
    assert is_instant(data["as_of"])


async def test_a_student_without_credits_is_told_so_with_200(service):
    """Not eligible is an answer, with a sentence for the person."""
    student = await service.student()
    answer = await service.http.post(
        "/api/mock-discussions/validate-credits", json={}, headers=student.headers
    )
    data = data_of(answer)
    assert set(data) == CHECK | {"error_message"}
    assert (data["eligible"], data["available_credits"]) == (False, 0)
    assert data["error_message"]


async def unknown_balance(service, student_id):
    """A contact in both, whose balances only the portal knows."""
    pair = {"student_id": student_id, "email": f"unknown{student_id}@example.com"}
    made = await service.simulator.edit(object_type="contacts", properties=pair | {"sj_credits": "4"})
    contact = await make_contact(service.db, hubspot_id=made["id"], **pair)
    assert await balances(service.db, contact) == {}
    return pair, contact


async def test_a_balance_that_is_not_stored_is_read_from_hubspot(service):
    """A missing row means "ask HubSpot", never 0."""
    pair, contact = await unknown_balance(service, "777001")
    await service.simulator.edit(
        object_type="contacts", id=contact.hubspot_id, properties={"firstname": "Grace"}
    )
    data = data_of(await service.check(pair))
    assert (data["available_credits"], data["source"], data["id"]) == (4, "hubspot", str(contact.id))


async def test_an_answer_of_hubspot_older_than_ours_gives_no_false_zero(service):
    """It is not merged; then the balance is still unknown, which is an error with a time to come back."""
    pair, contact = await unknown_balance(service, "777002")
    answer = await service.check(pair)
    refused(answer, 503, "CRM_BUSY")
    assert int(answer.headers["retry-after"]) >= 1
    assert await balances(service.db, contact) == {}


async def test_the_ndecc_date_is_stored_and_shown(service, ada):
    """A date of today or later, as a date."""
    on = (datetime.now(UTC) + timedelta(days=40)).date().isoformat()
    answer = await service.http.put(
        "/api/user/update-ndecc-date", json={"ndecc_exam_date": on}, headers=ada.headers
    )
    data = data_of(answer)
    assert set(data) == fields("contact_id id student_id email ndecc_exam_date updated_at")
    assert data["ndecc_exam_date"] == on
    assert is_instant(data["updated_at"])
    shown = data_of(await service.http.get("/api/user/me", headers=ada.headers))
    assert shown["ndecc_exam_date"] == on


async def test_sessions_are_listed_with_seats_and_clock_times(service):
    """Full ones only on request; no inactive or past one; times are those on the wall of the place."""
    free = await make_mock_exam(service.db, mock_type="Mini-mock", days=21, location="Calgary", capacity=3)
    full = await make_mock_exam(service.db, mock_type="Mini-mock", days=22, capacity=1)
    await make_mock_exam(service.db, mock_type="Mini-mock", days=23, activation="inactive")
    await make_mock_exam(service.db, mock_type="Mini-mock", days=-2)
    student = await service.student(credits={"sjmini_credits": 1})
    data_of(await book(service, student, full), 201)

    answer = await service.http.get("/api/mock-exams/available", params={"mock_type": "Mini-mock"})
    (listed,) = data_of(answer)
    assert set(listed) == fields(
        "mock_exam_id id mock_type mock_set exam_date start_time end_time time_zone starts_at "
        "ends_at location address capacity total_bookings available_slots is_active status "
        "prerequisite_exam_ids"
    )
    assert (listed["mock_exam_id"], listed["exam_date"]) == (str(free.id), free.exam_on.isoformat())
    assert (listed["start_time"], listed["end_time"]) == ("09:00", "12:00")
    assert listed["time_zone"] == "America/Edmonton"
    assert datetime.fromisoformat(listed["starts_at"]) == free.starts_at
    assert is_instant(listed["starts_at"])
    assert (listed["available_slots"], listed["status"], listed["is_active"]) == (3, "limited", True)

    answer = await service.http.get(
        "/api/mock-exams/available?mock_type=Mini-mock&include_capacity=true&realtime=true&_t=1"
    )
    assert [(each["id"], each["status"]) for each in data_of(answer)] == [
        (str(free.id), "limited"),
        (str(full.id), "full"),
    ]


async def test_capacity_tells_the_seats_of_one_session(service):
    """By UUID or HubSpot id alike."""
    exam = await make_mock_exam(service.db, capacity=4, days=3, hubspot_id="880001")
    for ref in (exam.id, "880001"):
        data = data_of(await service.http.get(f"/api/mock-exams/{ref}/capacity"))
        assert is_instant(data.pop("last_checked"))
        assert data == {
            "mock_exam_id": "880001",
            "id": str(exam.id),
            "capacity": 4,
            "total_bookings": 0,
            "available_slots": 4,
            "is_full": False,
        }


@pytest.mark.parametrize("prefix", ["/api", ""])
async def test_balances_and_their_history_are_shown_at_both_addresses(service, prefix):
    """The ledger newest first, filtered by reason, with the booking it was for."""
    student = await service.student(credits={"sj_credits": 3, "credits": 7})
    exam = await make_mock_exam(service.db, days=40)
    booked = data_of(await book(service, student, exam), 201)
    data = data_of(await service.http.get(f"{prefix}/auth/credits?refresh=true", headers=student.headers))
    assert set(data) == fields("user_id id credits balances held source as_of")
    assert (data["credits"], data["source"], data["held"]) == (7, "database", {})
    assert data["balances"]["sj_credits"] == 2
    history = data_of(
        await service.http.get(
            f"{prefix}/auth/usage-history?page=1&per_page=1&action_filter=booking", headers=student.headers
        )
    )
    assert history["pagination"] == {"page": 1, "per_page": 1, "total": 1, "pages": 1}
    (entry,) = history["data"]
    assert (entry["action"], entry["delta"], entry["credits_used"], entry["balance_after"]) == (
        "booking",
        -1,
        1,
        2,
    )
    assert entry["booking_id"] == booked["booking_id"]


async def test_signing_out_ends_every_session_of_the_student(service):
    """Also one from another device; others stay signed in."""
    student, other = await service.student(), await service.student()
    elsewhere = await service.sign_in(student.contact)
    answer = await service.http.post("/api/user/logout", json={}, headers=student.headers)
    assert data_of(answer) == {}
    for ended in (student, elsewhere):
        answer = await service.http.get("/api/user/me", headers=ended.headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHENTICATED")
    data_of(await service.http.get("/api/user/me", headers=other.headers))
    data_of(await service.http.get("/api/user/me", headers=(await service.sign_in(student.contact)).headers))


async def test_health_readiness_and_figures_are_there(service):
    """The process lives, can work, and counts hits, misses, HubSpot calls and its pool."""
    assert data_of(await service.http.get("/healthz")) == {"status": "ok"}
    assert data_of(await service.http.get("/readyz")) == {"status": "ready"}
    figures = (await service.http.get("/metrics")).text
    for name in (
        "tallybook_lookup_hits_total",
        "tallybook_lookup_misses_total",
        "tallybook_lookup_hit_rate",
        'tallybook_request_seconds_bucket{le="0.1",lookup="hit",method="POST",route="/api/bookings/create"}',
        'tallybook_hubspot_calls_total{kind="miss"}',
        'tallybook_hubspot_throttled_total{kind="miss"} 0.0',
        "tallybook_pool_connections",
    ):
        assert name in figures, name
