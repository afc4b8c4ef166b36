"""Every address and every kind of caller, as one table; and the doors that a setting opens."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from e2e.service import (
    CRON_SECRET,
    METRICS_TOKEN,
    SECRET_KEY,
    Server,
    client,
    code_of,
    data_of,
    environment_of,
    refused,
)
from support.factories import book, cancel, grant, make_contact, make_mock_exam
from tallybook.api.routes import ROUTES
from tallybook.api.secrets import STUDENT_TOKENS, derive_key
from tallybook.api.tokens import StudentTokens
from tallybook.domain.staff import StaffRole
from tallybook.usecases.create_staff import create_staff
from tallybook.usecases.keys import revoke_key

STAFF = ("staff@example.com", "a long password of the staff")
MONITORING = {"x-forwarded-for": "203.0.113.9"}

# What is sent to each address, but for the student: {live} and {cancelled} are bookings of Ada's.
PUBLIC = {
    "POST /api/user/login": {},
    "POST /api/admin/login": {"json": {"email": STAFF[0], "password": STAFF[1]}},
    "GET /api/mock-exams/available": {"params": {"mock_type": "Mini-mock"}},
    "GET /api/mock-exams/{mock_exam}/capacity": {},
    "GET /api/mock-discussions/available": {},
    "GET /api/credits/costs": {},
    "GET /healthz": {},
    "GET /readyz": {},
}
STUDENT = {
    "GET /api/user/me": {},
    "PUT /api/user/update-ndecc-date": {"json": {"ndecc_exam_date": "2099-12-31"}},
    "POST /api/mock-exams/validate-credits": {"json": {"mock_type": "Mini-mock"}},
    "POST /api/mock-discussions/validate-credits": {"json": {}},
    "POST /api/mock-discussions/create-booking": {"json": {"mock_exam_id": "{exam}", "dry_run": True}},
    "POST /api/bookings/create": {"json": {"mock_exam_id": "{exam}", "dry_run": True}},
    "GET /api/bookings/list": {},
    "POST /api/bookings/batch-cancel": {"json": {"booking_ids": ["{cancelled}"]}},
    "GET /api/bookings/{booking}.ics": {},
    "GET /api/bookings/{booking}": {},
    "DELETE /api/bookings/{booking}": {"json": {}, "booking": "cancelled"},
    "GET /api/bookings/{booking}/cancellation": {},
    "POST /api/bookings/{booking}/move": {"json": {"mock_exam_id": "{exam}", "dry_run": True}},
    "GET /api/auth/credits": {},
    "GET /api/auth/usage-history": {},
    "GET /auth/credits": {},
    "GET /auth/usage-history": {},
    # Last: it ends the sessions.
    "POST /api/user/logout": {"json": {}},
}
DOCX = {"contact": "{ada}", "action": "docx_processing", "dry_run": True}
APPLICATION = {
    "POST /api/contacts": {"json": {"email": "someone@example.com", "dry_run": True}},
    "GET /api/contacts/{contact}/credits": {},
    "GET /api/contacts/{contact}/entries": {},
    "POST /api/credits/check": {"json": {"contact": "{ada}", "action": "docx_processing"}},
    "POST /api/credits/charge": {"json": DOCX},
    "POST /api/credits/holds": {"json": DOCX},
    "POST /api/credits/holds/{hold}/capture": {"json": {"dry_run": True}},
    "POST /api/credits/holds/{hold}/release": {"json": {"dry_run": True}},
    "POST /api/credits/refund": {"json": {"entry_id": "entry", "dry_run": True}},
}
CRON = {
    "GET /api/admin/cron/activate-scheduled-exams": {},
    "GET /api/admin/cron/sync-supabase": {},
    "GET /api/admin/cron/warm-contact-credits-cache": {},
    "GET /api/admin/cron/batch-sync-hubspot": {},
    "GET /api/admin/cron/reconcile": {},
    "GET /api/admin/cron/expire-holds": {},
}
METRICS = {"GET /metrics": {}}
# Signed over their body, and not there at all while no secret is set.
WEBHOOKS = {"POST /api/webhooks/hubspot": {"json": []}, "POST /api/webhooks/stripe": {"json": {}}}
DOCS = {"GET /openapi.json": {}, "GET /docs": {}}
# The role each needs; by the table of roles, and not read from it.
STAFF_ONLY = {
    "GET /api/admin/sync/status": ("a viewer", {}),
    "GET /api/admin/sync/conflicts": ("a viewer", {}),
    "POST /api/admin/sync/conflicts/{conflict}/resolve": (
        "a coordinator",
        {"json": {"choice": "theirs", "reason": "seen"}},
    ),
    "GET /api/admin/sync/dead-letters": ("a viewer", {}),
    "POST /api/admin/sync/dead-letters/{type}/{letter}/retry": ("a coordinator", {"json": {}}),
    "POST /api/admin/sync/dead-letters/{type}/{letter}/discard": ("an admin", {"json": {"reason": "seen"}}),
    "POST /api/admin/sync/retry": ("a coordinator", {"json": {}}),
    "POST /api/admin/sync/reconcile": ("an admin", {"json": {"max_s": 20}}),
    "POST /api/admin/sync/lanes/{lane}/resume": ("an admin", {"json": {}}),
    "DELETE /api/admin/cache/contact/{student_id}": ("a coordinator", {"json": {}}),
    # Last: it ends the sessions.
    "POST /api/admin/logout": ("a viewer", {"json": {}}),
}
TABLE = PUBLIC | STUDENT | APPLICATION | CRON | METRICS | WEBHOOKS | DOCS
TABLE |= {name: request for name, (_, request) in STAFF_ONLY.items()}

IN, UNSIGNED, FORBIDDEN = None, (401, "UNAUTHENTICATED"), (403, "FORBIDDEN")
NOBODY = (
    "nobody",
    "somebody with a word",
    "an expired token",
    "a forged token",
    "a token of another kind",
    "a token from before signing out",
    "an expired key",
    "a revoked key",
    "a malformed key",
    "a key nobody made",
    "a key hashed with another secret",
    "a wrong secret of the scheduler",
    "the student's token as Basic",
)
ROLES = ("a viewer", "a coordinator", "an admin")
KNOWN = (
    "the student",
    "an application",
    "an application for metered actions",
    "the scheduler",
    "staff",
    *ROLES,
)
MONITOR = "the monitoring"


def expected(caller, name):
    """What this caller gets at this address: IN, or status and code."""
    if name in PUBLIC:
        return IN
    if name in STUDENT:
        ours = {"the student": IN, "an application": IN, "an application for metered actions": FORBIDDEN}
        return ours.get(caller, UNSIGNED)
    if name in WEBHOOKS:
        return (404, "NOT_FOUND")
    if name in APPLICATION:
        ours = {"an application for metered actions": IN, "an application": FORBIDDEN}
        return ours.get(caller, UNSIGNED)
    if name in STAFF_ONLY:
        least = ROLES.index(STAFF_ONLY[name][0])
        ours = {role: IN if rank >= least else FORBIDDEN for rank, role in enumerate(ROLES)}
        return ours.get(caller, UNSIGNED)
    door = "the scheduler" if name in CRON else MONITOR if name in METRICS else "staff"
    return IN if caller == door else UNSIGNED


@dataclass
class Cast:
    """The student, what she has booked, and what everybody shows at the door."""

    ada: object
    mallory: object
    exam: object
    live: str
    cancelled: str
    hold: str
    entry: int
    conflict: int
    letters: list[str]
    headers: dict[str, dict[str, str]]


def bearer(text):
    return {"authorization": f"Bearer {text}"}


def basic(user, password):
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def token(contact, *, ago=timedelta(), secret=SECRET_KEY):
    tokens = StudentTokens(secret, previous=None, clock=lambda: datetime.now(UTC) - ago)
    return tokens.issue(contact_id=contact.id, epoch=1, hubspot_id=contact.hubspot_id)[0]


def staff_token(contact):
    """Signed by us, for somebody else than students."""
    now = int(datetime.now(UTC).timestamp())
    claims = {"sub": str(contact.id), "epoch": 1, "aud": "authenticated", "iss": "tallybook"}
    claims |= {"iat": now, "exp": now + 600}
    return jwt.encode(claims, derive_key(SECRET_KEY, purpose=STUDENT_TOKENS), algorithm="HS256")


async def signed_in_staff(service, role):
    """The headers of a new staff account of this role."""
    email = f"{role.value}@example.com"
    await create_staff(service.db, email=email, name=None, role=role, password=STAFF[1], actor="cli:test")
    answer = await service.http.post("/api/admin/login", json={"email": email, "password": STAFF[1]})
    assert data_of(answer)["role"] == role.value
    return bearer(data_of(answer)["token"])


async def bad_keys(service):
    revoked = await service.new_key("students")
    await revoke_key(service.db, key_id=revoked.split("_")[1], actor="cli:test")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    known_id = service.api_key.split("_")[1]
    return {
        "an expired key": bearer(await service.new_key("students", expires_at=yesterday)),
        "a revoked key": bearer(revoked),
        "a malformed key": bearer("tb_" + "x" * 300),
        "a key nobody made": bearer(f"tb_{known_id}_{'x' * 43}"),
        "a key hashed with another secret": bearer(await service.new_key("students", secret_key="y" * 40)),
    }


@pytest.fixture(scope="module")
async def service(start_service):
    return await start_service(contacts=20, TALLYBOOK_TRUSTED_PROXIES="1")


async def student_of_hubspot(service, name, **balances):
    """A student who is in the portal too: the scheduler's jobs compare with it."""
    known = {"email": f"{name}@example.com", "student_id": name.upper()}
    numbers = {credit_type: str(number) for credit_type, number in balances.items()}
    made = await service.simulator.edit(object_type="contacts", properties=known | numbers)
    return await service.student(credits=balances, hubspot_id=made["id"], **known)


@pytest.fixture(scope="module")
async def cast(service):
    ada, mallory = [await student_of_hubspot(service, name, sj_credits=9) for name in ("ada", "mallory")]
    db = service.db
    exam, first, second = [await make_mock_exam(db, days=days) for days in (5, 6, 7)]
    live = (await book(db, ada.contact, first))["id"]
    cancelled = (await book(db, ada.contact, second))["id"]
    await cancel(db, ada.contact, cancelled)
    await grant(db, ada.contact, "credits", 50)
    metered = bearer(service.credits_key)
    paid = {"contact": str(ada.contact.id), "action": "docx_processing"}
    charged = await service.http.post("/api/credits/charge", json=paid, headers=metered)
    held = await service.http.post("/api/credits/holds", json=paid, headers=metered)
    gone = await service.student()
    await service.http.post("/api/user/logout", json={}, headers=gone.headers)
    await create_staff(
        db, email=STAFF[0], name=None, role=StaffRole.VIEWER, password=STAFF[1], actor="cli:test"
    )
    headers = {
        "nobody": {},
        "somebody with a word": bearer("letmein"),
        "an expired token": bearer(token(ada.contact, ago=timedelta(hours=12, seconds=1))),
        "a forged token": bearer(token(ada.contact, secret="another secret, also long enough for a key")),
        "a token of another kind": bearer(staff_token(ada.contact)),
        "a token from before signing out": gone.headers,
        "a wrong secret of the scheduler": bearer(CRON_SECRET[:-1]),
        "the student's token as Basic": basic("ada", ada.headers["authorization"]),
        **await bad_keys(service),
        "the student": ada.headers,
        "an application": service.as_app,
        "an application for metered actions": bearer(service.credits_key),
        "the scheduler": bearer(CRON_SECRET),
        "staff": basic(*STAFF),
        MONITOR: bearer(METRICS_TOKEN),
    }
    for role, caller in zip((StaffRole.VIEWER, StaffRole.COORDINATOR, StaffRole.ADMIN), ROLES, strict=True):
        headers[caller] = await signed_in_staff(service, role)
    # The student whose record is read again has to be stored.
    data_of(await service.check({"student_id": "1599000", "email": "student0@example.com"}))
    ((conflict,),) = await service.run(
        "insert into tallybook.sync_conflicts"
        " (object_type, object_id, field, kind, resolved_at, resolved_by, resolution)"
        " values ('contact', %s, 'email', 'both_changed', now(), 'cli:test', 'theirs') returning id",
        ada.contact.id,
    )
    letters = await service.run(
        "insert into tallybook.inbox (object_type, hubspot_id, subscription_type, dead_at)"
        " values ('contact', '424242', 'reread', now()), ('contact', '434343', 'reread', now())"
        " returning id::text"
    )
    [entry] = data_of(charged, 201)["entry_ids"]
    hold = data_of(held, 201)["id"]
    return Cast(
        ada, mallory, exam, live, cancelled, hold, entry, conflict, [each for (each,) in letters], headers
    )


def filled(value, cast):
    """The request with Ada's session and bookings in it."""
    if isinstance(value, dict):
        return {name: filled(each, cast) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, cast) for each in value]
    if value == "entry":
        return cast.entry
    if isinstance(value, str):
        return value.format(
            exam=cast.exam.id, live=cast.live, cancelled=cast.cancelled, ada=cast.ada.contact.id
        )
    return value


async def send(http, cast, name, headers, pair=None):
    """One request of the table; `pair` is named where such a request names it."""
    request = filled(TABLE[name], cast)
    method, path = name.split()
    booking = cast.cancelled if request.pop("booking", None) else cast.live
    path = path.replace("{booking}", booking).replace("{mock_exam}", str(cast.exam.id))
    path = path.replace("{contact}", str(cast.ada.contact.id)).replace("{hold}", cast.hold)
    path = path.replace("{conflict}", str(cast.conflict)).replace("{type}", "inbox")
    letter = cast.letters[path.endswith("/discard")]
    path = path.replace("{letter}", letter).replace("{lane}", "pull").replace("{student_id}", "1599000")
    if pair is not None:
        where = "params" if method == "GET" else "json"
        request[where] = request.get(where, {}) | pair
    return await http.request(method, path, headers=headers, **request)


def test_the_table_has_every_address():
    """An address that is not written down here may be called by nobody knows whom."""
    assert sorted(f"{route.method} {route.path}" for route in ROUTES) == sorted(TABLE)


@pytest.mark.parametrize("name", TABLE)
async def test_each_address_lets_in_whom_it_should_and_nobody_else(service, cast, name):
    """401 for who cannot be known, 403 for who may not, and the answer for who may."""
    callers = [*NOBODY, *KNOWN, MONITOR]
    # The student comes last: signing out ends her session.
    callers.sort(key=lambda caller: caller == "the student")
    found, wanted = {}, {}
    for n, caller in enumerate(callers):
        headers = cast.headers[caller]
        from_elsewhere = {"x-forwarded-for": f"203.0.113.{n}"}
        names_a_pair = name in STUDENT and caller != "the student"
        named = cast.mallory if name.endswith("/logout") else cast.ada
        pair = named.pair if names_a_pair or name == "POST /api/user/login" else None
        answer = await send(service.http, cast, name, headers | from_elsewhere, pair)
        wanted[caller] = expected(caller, name) or 200
        found[caller] = 200 if answer.is_success else (answer.status_code, code_of(answer))
        if answer.status_code == 401:
            scheme = "Basic" if name in DOCS else "Bearer"
            assert answer.headers["www-authenticate"].startswith(scheme)
    assert found == wanted


@pytest.mark.parametrize("name", STUDENT)
async def test_a_student_may_not_name_another(service, cast, name):
    """Another student's pair beside a token, whole or half: 403, or 400 for the half; nothing is done."""
    student = await service.sign_in(cast.ada.contact)
    before = await service.fingerprint()
    other = cast.mallory.pair
    refused(await send(service.http, cast, name, student.headers, other), 403, "FORBIDDEN")
    for mixed in (cast.ada.pair | {"email": other["email"]}, other | {"email": cast.ada.pair["email"]}):
        refused(await send(service.http, cast, name, student.headers, mixed), 403, "FORBIDDEN")
    half = {"email": other["email"]}
    refused(await send(service.http, cast, name, student.headers, half), 400, "VALIDATION_ERROR")
    assert await service.fingerprint() == before
    own = await send(service.http, cast, name, student.headers, cast.ada.pair)
    assert own.is_success, own.text


@pytest.mark.parametrize("name", [name for name in STUDENT if "{booking}" in name])
async def test_another_students_booking_is_not_there(service, cast, name):
    """404 BOOKING_NOT_FOUND by its UUID, its HubSpot id and its booking_id; nothing is done."""
    student = await service.sign_in(cast.mallory.contact)
    ((booking_id,),) = await service.run(
        "update tallybook.bookings set hubspot_id = '990077' where id = %s returning booking_id", cast.live
    )
    before = await service.fingerprint()
    method, path = name.split()
    request = filled({"json": {}} | TABLE[name], cast)
    request.pop("booking", None)
    if method == "GET":
        del request["json"]
    for ref in (cast.live, "990077", booking_id):
        address = path.replace("{booking}", ref)
        answer = await service.http.request(method, address, headers=student.headers, **request)
        refused(answer, 404, "BOOKING_NOT_FOUND")
    assert await service.fingerprint() == before


async def test_an_application_has_to_name_its_student(service, cast):
    """Without the pair it acts for nobody: 400, and both fields are needed."""
    for name in STUDENT:
        answer = await send(service.http, cast, name, service.as_app)
        assert refused(answer, 400, "VALIDATION_ERROR")["field"] in {"student_id", "email"}


async def test_an_application_signs_its_student_out(service, cast):
    """The named student's sessions end, nobody else's."""
    student, other = [await service.sign_in(each.contact) for each in (cast.ada, cast.mallory)]
    answer = await service.http.post("/api/user/logout", json=cast.ada.pair, headers=service.as_app)
    assert data_of(answer) == {}
    refused(await service.http.get("/api/user/me", headers=student.headers), 401, "UNAUTHENTICATED")
    data_of(await service.http.get("/api/user/me", headers=other.headers))


async def test_figures_are_open_to_this_machine_only(service):
    """Without the token: from loopback yes, through a proxy no."""
    assert (await service.http.get("/metrics")).status_code == 200
    refused(await service.http.get("/metrics", headers=MONITORING), 401, "UNAUTHENTICATED")


async def test_a_wrong_password_of_the_staff_is_counted_per_address(service, cast):
    """Eleven in a minute: the eleventh is 429, from elsewhere the right one still opens."""
    wrong = basic(STAFF[0], "not the password") | {"x-forwarded-for": "198.51.100.1"}
    statuses = [(await service.http.get("/docs", headers=wrong)).status_code for _ in range(12)]
    assert statuses[:10] == [401] * 10
    assert 429 in statuses[10:]
    assert (await service.http.get("/docs", headers=cast.headers["staff"])).status_code == 200


@pytest.fixture(scope="module")
async def open_doors(service):
    """A second server on the same database: pair mode, public docs, no secrets set."""
    settings = {
        "CRON_SECRET": None,
        "TALLYBOOK_METRICS_TOKEN": None,
        "TALLYBOOK_DOCS": "public",
        "TALLYBOOK_STUDENT_AUTH": "pair",
        "TALLYBOOK_CORS_ORIGINS": "https://old.example",
        "TALLYBOOK_TRUSTED_PROXIES": "1",
    }
    server = Server(service.directory, environment_of(service.uri, service.simulator, **settings))
    try:
        await server.ready()
        async with client(server.url) as http:
            yield http
    finally:
        server.stop()


async def test_a_secret_that_is_not_set_opens_nothing(open_doors, cast):
    """The scheduler's addresses stay shut for every word; so do the figures."""
    for name in CRON:
        for word in (CRON_SECRET, "None", "null", "undefined", "*"):
            refused(
                await send(open_doors, cast, name, {"authorization": f"Bearer {word}"}),
                401,
                "UNAUTHENTICATED",
            )
        refused(await send(open_doors, cast, name, {}), 401, "UNAUTHENTICATED")
    figures = await open_doors.get("/metrics", headers=MONITORING | bearer(METRICS_TOKEN))
    refused(figures, 401, "UNAUTHENTICATED")


async def test_public_docs_are_for_everybody(open_doors):
    """TALLYBOOK_DOCS=public."""
    assert (await open_doors.get("/openapi.json")).json()["openapi"].startswith("3.1")
    assert "<h1" in (await open_doors.get("/docs")).text


@pytest.mark.parametrize("name", STUDENT)
async def test_pair_mode_takes_the_bare_pair_and_nothing_less(service, open_doors, cast, name):
    """The pair is enough; a wrong one is 404, none 401, and a bad token is never overlooked."""
    answer = await send(open_doors, cast, name, {}, cast.ada.pair)
    assert answer.is_success, answer.text
    wrong = cast.ada.pair | {"email": cast.mallory.pair["email"]}
    await forget_failures(service)
    refused(await send(open_doors, cast, name, {}, wrong), 404, "STUDENT_NOT_FOUND")
    refused(await send(open_doors, cast, name, {}), 401, "UNAUTHENTICATED")
    forged = cast.headers["a forged token"]
    refused(await send(open_doors, cast, name, forged, cast.ada.pair), 401, "UNAUTHENTICATED")


async def forget_failures(service):
    """As a minute without guesses would."""
    async with service.db.connection() as connection:
        await connection.execute("delete from tallybook.rate_events where key like 'login-failure:%'")


async def test_a_wrong_pair_is_a_guess_and_ten_a_minute_are_enough(service, open_doors, cast):
    """Where the pair is the only secret, guessing it is limited as a sign-in is; knowing it is not."""
    await forget_failures(service)
    check = "POST /api/mock-exams/validate-credits"
    for _ in range(10):
        wrong = cast.ada.pair | {"email": cast.mallory.pair["email"]}
        refused(await send(open_doors, cast, check, {}, wrong), 404, "STUDENT_NOT_FOUND")
    refused(await send(open_doors, cast, check, {}, wrong), 429, "RATE_LIMITED")
    assert (await send(open_doors, cast, check, {}, cast.ada.pair)).is_success
    await forget_failures(service)


async def test_pair_mode_speaks_to_the_old_front_end(service, open_doors):
    """camelCase and superfluous fields are read, old names stand beside ours, its origin may read."""
    contact = await make_contact(service.db, credits={"sj_credits": 2, "mock_discussion_token": 1})
    exam = await make_mock_exam(service.db, days=44)
    pair = {"studentId": contact.student_id, "email": contact.email}
    origin = {"origin": "https://old.example"}
    answer = await open_doors.post(
        "/api/bookings/create",
        json=pair | {"mockExamId": str(exam.id), "contactId": "1", "enrollmentId": None, "examDate": "x"},
        headers=origin,
    )
    data = data_of(answer, 201)
    assert answer.headers["access-control-allow-origin"] == "https://old.example"
    assert (data["examType"], data["examDate"], data["startTime"], data["endTime"]) == (
        data["mock_type"],
        data["exam_date"],
        data["start_time"],
        data["end_time"],
    )
    assert (data["tokenUsed"], data["creditsAfterDeduction"]) == (data["token_used"], data["credits_after"])
    answer = await open_doors.post("/api/mock-discussions/validate-credits", json=pair, headers=origin)
    check = data_of(answer)
    assert check["credit_breakdown"]["discussion_tokens"] == 1
    assert check["enrollment_id"] is None

    preflight = await open_doors.options(
        "/api/bookings/create", headers=origin | {"access-control-request-method": "POST"}
    )
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "Idempotency-Key" in preflight.headers["access-control-allow-headers"]
    stranger = await open_doors.get("/healthz", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    closed = await service.http.get("/healthz", headers=origin)
    assert "access-control-allow-origin" not in closed.headers
