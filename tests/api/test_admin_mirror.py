"""What staff see of the mirror over HTTP and what they change."""

from functools import partial
from uuid import uuid4

import jsonschema
import pytest

from support.factories import book, grant, make_contact, make_mock_exam
from tallybook.api.openapi import openapi_document
from tallybook.api.routes import ROUTES
from tallybook.domain.errors import ContactNotFound, CrmBusy
from tallybook.domain.staff import StaffRole
from tallybook.usecases.create_staff import create_staff
from tallybook.usecases.grant_credits import find_contact
from tallybook.usecases.sign_in_staff import admit_staff

DOCUMENT = openapi_document(ROUTES)
PASSWORD = "a long password of the staff"
SYNC = "/api/admin/sync"


@pytest.fixture
async def staff(serve, db):
    """An administrator's way to the API: `await staff("GET", "/status")` -> (status, data or code)."""
    account = {"email": "ada@example.com", "password": PASSWORD}
    await create_staff(db, **account, name=None, role=StaffRole.ADMIN, actor="cli:test")
    served = await serve(db=db, admit_staff=partial(admit_staff, db))
    token = (await served.http.post("/api/admin/login", json=account)).json()["data"]["token"]

    async def call(method, path, body=None, **params):
        answer = await served.http.request(
            method,
            SYNC + path,
            params=params,
            headers={"authorization": f"Bearer {token}"},
            **({} if method == "GET" else {"json": body or {}}),
        )
        found = answer.json()
        return answer.status_code, found["data"] if answer.is_success else found["error"]["code"]

    return call


def fits(path, method, data):
    """Whether the data have the shape the document promises."""
    answer = DOCUMENT["paths"][SYNC + path][method]["responses"]["200"]["content"]["application/json"]
    schema = answer["schema"]["properties"]["data"] | {"components": DOCUMENT["components"]}
    jsonschema.validate(data, schema, cls=jsonschema.Draft202012Validator)


async def test_status_conflicts_and_dead_letters_have_the_shape_of_the_document(staff, db, owner):
    """With something of everything in them."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    await book(db, contact, await make_mock_exam(db))
    await owner.execute(
        "update tallybook.outbox set dead_at = now(), last_error = 'no' where object_type = 'booking'"
    )
    await owner.execute(
        "insert into tallybook.inbox (object_type, hubspot_id, subscription_type, dead_at)"
        " values ('contact', '5', 'reread', now())"
    )
    await owner.execute(
        "select tallybook.open_conflict('contact', %s, 'email', 'both_changed', 'a', 'b', '{}', true)",
        (contact.id,),
    )
    await owner.execute(
        "update tallybook.sync_lanes"
        " set paused_at = now(), reason = 'x', resume_at = now() where lane = 'pull'"
    )
    await owner.execute("select tallybook.raise_alert('lag', 'booking', '{}')")
    await owner.execute(
        "insert into tallybook.sync_state (name, value) values"
        " ('poll:booking', '{\"mark\": null}'), ('poll:contact', '{\"mark\": \"2026-11-21T14:00:00.5Z\"}')"
    )
    await owner.execute("select tallybook.count_crm_calls('{\"push\": [3, 1]}')")
    for path in ("/status", "/conflicts", "/dead-letters"):
        status, data = await staff("GET", path)
        assert status == 200
        fits(path, "get", data)
    assert (await staff("GET", "/conflicts", kind="deleted"))[1]["total"] == 0
    assert (await staff("GET", "/conflicts", object_type="contact"))[1]["total"] == 1
    assert (await staff("GET", "/dead-letters", type="inbox"))[1]["total"] == 1
    for wrong in ({"object_type": "deal"}, {"page": 0}, {"limit": 101}, {"kind": "x" * 41}):
        assert await staff("GET", "/conflicts", **wrong) == (400, "VALIDATION_ERROR")


async def test_a_dead_letter_is_tried_again_or_given_up(staff, db, owner):
    """By type and id; what is not there is 404, a discard without a reason 400; the account is the actor."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    booking = (await book(db, contact, await make_mock_exam(db)))["id"]
    await owner.execute("update tallybook.outbox set dead_at = now() where object_type = 'booking'")
    letter = f"/dead-letters/booking/{booking}"
    assert await staff("POST", f"{letter}/discard") == (400, "VALIDATION_ERROR")
    assert await staff("POST", f"{letter}/discard", {"reason": " "}) == (400, "VALIDATION_ERROR")
    assert await staff("POST", f"{letter}/retry") == (200, {"retried": 1})
    assert await staff("POST", f"{letter}/retry") == (200, {"retried": 0})
    for path in (
        f"/dead-letters/contact/{booking}",
        f"/dead-letters/deal/{booking}",
        "/dead-letters/inbox/9",
    ):
        assert await staff("POST", f"{path}/retry") == (404, "NOT_FOUND")
        assert await staff("POST", f"{path}/discard", {"reason": "gone"}) == (404, "NOT_FOUND")
    await owner.execute("update tallybook.outbox set dead_at = now() where object_type = 'booking'")
    assert await staff("POST", "/retry") == (200, {"retried": 1})
    await owner.execute("update tallybook.outbox set dead_at = now() where object_type = 'booking'")
    status, data = await staff("POST", f"{letter}/discard", {"reason": "entered by hand"})
    assert (status, data["type"], data["id"]) == (200, "booking", booking)
    cursor = await owner.execute(
        "select l.actor = 'staff:' || s.id, d.details ->> 'reason'"
        " from tallybook.staff s, tallybook.audit_log l"
        " join tallybook.audit_details d on d.audit_id = l.id where l.action = 'dead_letter.discarded'"
    )
    assert await cursor.fetchone() == (True, "entered by hand")


async def test_a_conflict_is_named_by_its_number(staff):
    """Anything else is 404, as one that does not exist; the choice is one of four."""
    seen = {"choice": "ours", "reason": "seen"}
    for number in ("7", "-1", "x", "99999999999999999999", "1.0", str(uuid4())):
        assert await staff("POST", f"/conflicts/{number}/resolve", seen) == (404, "NOT_FOUND")
    for body in ({}, {"choice": "mine", "reason": "x"}, {"choice": "ours"}, seen | {"value": "3"}):
        assert await staff("POST", "/conflicts/7/resolve", body) == (400, "VALIDATION_ERROR")


async def test_a_lane_is_resumed_once(staff, owner):
    """The second time it was not paused; there are four lanes."""
    await owner.execute(
        "update tallybook.sync_lanes set paused_at = now(), reason = 'token' where lane = 'booking'"
    )
    path = "/lanes/booking/resume"
    assert await staff("POST", path) == (200, {"lane": "booking", "reason": "token"})
    assert await staff("POST", path) == (200, {"lane": "booking", "idempotent": True})
    assert await staff("POST", "/lanes/fast/resume") == (404, "NOT_FOUND")


async def test_a_contact_is_read_again_by_student_id(serve, db):
    """What was granted here stays; an unknown one is 404, a busy HubSpot 503."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    await grant(db, contact, "sj_credits", 3)
    asked = []

    async def refresh(named):
        asked.append(named)
        if named == "student:BUSY":
            raise CrmBusy
        if named.startswith("student:0"):
            raise ContactNotFound
        return await find_contact(db, named)

    account = {"email": "ada@example.com", "password": PASSWORD}
    await create_staff(db, **account, name=None, role=StaffRole.COORDINATOR, actor="cli:test")
    served = await serve(db=db, admit_staff=partial(admit_staff, db), refresh_contact=refresh)
    token = (await served.http.post("/api/admin/login", json=account)).json()["data"]["token"]

    async def delete(named):
        headers = {"authorization": f"Bearer {token}"}
        return await served.http.delete(f"/api/admin/cache/contact/{named}", headers=headers)

    answer = await delete(contact.student_id)
    assert answer.json()["data"]["balances"]["sj_credits"] == 5
    await delete(f"email:{contact.email}")
    await delete(str(contact.id))
    assert asked == [f"student:{contact.student_id}", f"email:{contact.email}", str(contact.id)]
    assert (await delete("000")).status_code == 404
    busy = await delete("BUSY")
    assert (busy.status_code, "retry-after" in busy.headers) == (503, True)
