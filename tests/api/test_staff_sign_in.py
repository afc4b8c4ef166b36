"""Staff at the API: the token only identifies, the role is what the database says at each request."""

from functools import partial

import jwt
import pytest

from tallybook.api.admin_routes import ADMIN_ROUTES
from tallybook.api.callers import Access
from tallybook.api.secrets import STAFF_TOKENS, derive_key
from tallybook.domain.staff import POLICY, Permission, StaffRole, may
from tallybook.usecases.create_staff import create_staff
from tallybook.usecases.sign_in_staff import CALLS_PER_MIN, admit_staff

PASSWORD = "a long password of the staff"
STATUS = "/api/admin/sync/status"


@pytest.fixture
async def served(serve, db):
    return await serve(db=db, admit_staff=partial(admit_staff, db))


async def new_account(db, role=StaffRole.VIEWER, *, password=PASSWORD):
    await create_staff(
        db, email="ada@example.com", name="Ada", role=role, password=password, actor="cli:test"
    )


async def sign_in(served, *, email="ada@example.com", password=PASSWORD):
    return await served.http.post("/api/admin/login", json={"email": email, "password": password})


async def bearer(served):
    answer = await sign_in(served)
    assert answer.status_code == 200, answer.text
    return {"authorization": f"Bearer {answer.json()['data']['token']}"}


async def test_a_local_account_gets_a_token_for_twelve_hours(served, db):
    """Who it is and what role it has; upper case in the e-mail does not matter."""
    await new_account(db, StaffRole.COORDINATOR)
    answer = await sign_in(served, email="Ada@Example.com")
    data = answer.json()["data"]
    assert (data["role"], data["email"], data["name"]) == ("coordinator", "ada@example.com", "Ada")
    assert (data["token_type"], data["expires_in"]) == ("Bearer", 12 * 3600)
    headers = {"authorization": f"Bearer {data['token']}"}
    assert (await served.http.get(STATUS, headers=headers)).status_code == 200
    served.clock.advance(hours=11, minutes=59)
    assert (await served.http.get(STATUS, headers=headers)).status_code == 200
    served.clock.advance(minutes=2)
    assert (await served.http.get(STATUS, headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("email", "password"),
    [("ada@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("no address", PASSWORD)],
)
async def test_a_wrong_password_and_an_unknown_account_are_the_same(served, db, email, password):
    """LOGIN_FAILED; nothing tells which of the two it was."""
    await new_account(db)
    answer = await sign_in(served, email=email, password=password)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "LOGIN_FAILED")
    assert answer.json()["error"]["details"] == {}


async def test_guessing_is_limited_per_address(served, db):
    """Ten failures a minute; after that also the right password waits. Students sign in all the same."""
    await new_account(db)
    # On a slow machine the minute moves on meanwhile, and frees a few.
    statuses = [(await sign_in(served, password="wrong")).status_code for _ in range(15)]
    assert statuses[:10] == [401] * 10
    assert 429 in statuses[10:]
    assert (await sign_in(served)).status_code == 429
    async with db.connection() as connection:
        cursor = await connection.execute("select tallybook.may_sign_in('127.0.0.1')")
        assert (await cursor.fetchone())[0]


async def test_a_role_counts_from_the_next_request_on(served, db, owner):
    """Lowered, it may no longer; the same token, no new sign-in."""
    await new_account(db, StaffRole.ADMIN)
    headers = await bearer(served)
    resume = partial(served.http.post, "/api/admin/sync/lanes/pull/resume", json={}, headers=headers)
    assert (await resume()).status_code == 200
    await owner.execute("update tallybook.staff set role = 'coordinator'")
    refused = await resume()
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert refused.json()["error"]["details"] == {"needs": "admin"}
    assert (await served.http.get(STATUS, headers=headers)).status_code == 200


async def test_a_token_ends_with_the_account_with_its_password_and_with_signing_out(served, db, owner):
    """Disabled, changed, or signed out: 401 from that moment on."""
    await new_account(db)
    headers = await bearer(served)
    await owner.execute("update tallybook.staff set disabled_at = now()")
    assert (await served.http.get(STATUS, headers=headers)).status_code == 401
    assert (await sign_in(served)).status_code == 401
    await new_account(db, password="another long password")
    assert (await served.http.get(STATUS, headers=headers)).status_code == 401
    await new_account(db)
    first, second = await bearer(served), await bearer(served)
    assert (await served.http.post("/api/admin/logout", json={}, headers=first)).status_code == 200
    for each in (first, second):
        assert (await served.http.get(STATUS, headers=each)).status_code == 401


async def test_nothing_else_passes_for_a_token_of_the_staff(served, db, secret):
    """A student's token, one of another kind, one signed with another purpose's key, a word, a password."""
    await new_account(db, StaffRole.SUPER_ADMIN)
    token = (await bearer(served))["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = [
        jwt.encode(claims, derive_key(secret, purpose="student tokens"), algorithm="HS256"),
        jwt.encode(
            claims | {"aud": "tallybook-student"}, derive_key(secret, purpose=STAFF_TOKENS), algorithm="HS256"
        ),
        jwt.encode(claims | {"sub": "ada"}, derive_key(secret, purpose=STAFF_TOKENS), algorithm="HS256"),
        jwt.encode(claims, None, algorithm="none"),
        served.student_token(),
        "letmein",
    ]
    for each in forged:
        answer = await served.http.get(STATUS, headers={"authorization": f"Bearer {each}"})
        assert answer.status_code == 401, each
    basic = await served.http.get(STATUS, auth=("ada@example.com", PASSWORD))
    assert basic.status_code == 401


async def test_public_docs_open_no_other_door(serve, db):
    """TALLYBOOK_DOCS=public is about the document alone."""
    served = await serve(db=db, admit_staff=partial(admit_staff, db), public_docs=True)
    assert (await served.http.get("/docs")).status_code == 200
    assert (await served.http.get(STATUS)).status_code == 401


async def test_calls_are_limited_per_person(served, db):
    """A loop that runs wild meets 429, and only its own account."""
    await new_account(db)
    headers = await bearer(served)
    async with db.connection() as connection:
        await connection.execute(
            "insert into tallybook.rate_events (key, window_start, backend, calls)"
            " select 'staff:' || id, date_trunc('minute', clock_timestamp()), -1, %s from tallybook.staff",
            (CALLS_PER_MIN,),
        )
    assert (await served.http.get(STATUS, headers=headers)).status_code == 429


def test_every_address_for_staff_says_what_it_needs():
    """Only signing out is for everybody; a change needs more than looking."""
    for route in ADMIN_ROUTES:
        if route.access is Access.STAFF and not route.path.endswith("/logout"):
            assert route.permission is not None
            assert (POLICY[route.permission] is StaffRole.VIEWER) == (route.method == "GET")


def test_a_role_may_everything_the_ones_below_it_may():
    """In the order viewer, coordinator, admin, super_admin; and each permission has a role."""
    assert set(POLICY) == set(Permission)
    for permission in Permission:
        allowed = [may(role, permission) for role in StaffRole]
        assert allowed == sorted(allowed)
        assert allowed[-1]
