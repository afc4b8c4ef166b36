"""Signing in with a mailed code against a real mail server, and limits that hold across processes."""

import asyncio
import email
import email.policy
import itertools
import re
import socket
import time

import pytest
from aiosmtpd.controller import Controller

from e2e.service import Server, client, data_of, refused
from support.factories import make_contact

_addresses = itertools.count(1)


class Inbox:
    """What the mail server was given."""

    def __init__(self):
        self.mails = []

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        self.mails.append(
            (envelope.rcpt_tos, email.message_from_bytes(envelope.content, policy=email.policy.default))
        )
        return "250 OK"

    async def code_for(self, address):
        """The six digits of the next mail to this address."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for at, (recipients, mail) in enumerate(self.mails):
                if recipients == [address]:
                    del self.mails[at]
                    return re.search(r"\b\d{6}\b", mail.get_content())[0]
            await asyncio.sleep(0.01)
        raise AssertionError(f"no mail to {address}")


@pytest.fixture(scope="module")
def inbox():
    inbox = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(inbox, hostname="127.0.0.1", port=port)
    controller.start()
    inbox.url = f"smtp://127.0.0.1:{port}"
    yield inbox
    controller.stop()


@pytest.fixture(scope="module")
async def service(start_service, inbox):
    return await start_service(
        contacts=50,
        TALLYBOOK_LOGIN_CODE="email",
        TALLYBOOK_SMTP_URL=inbox.url,
        TALLYBOOK_MAIL_FROM="Tallybook <no-reply@school.example>",
        TALLYBOOK_TRUSTED_PROXIES="1",
    )


@pytest.fixture
def somewhere():
    """The headers of a client at an address of its own."""
    return {"x-forwarded-for": f"203.0.113.{next(_addresses)}"}


def login(http, body, headers):
    return http.post("/api/user/login", json=body, headers=headers)


async def challenged(service, inbox, somewhere):
    """A stored student who was sent a code: the contact, the challenge and the code."""
    contact = await make_contact(service.db, credits={"sj_credits": 1})
    pair = {"student_id": contact.student_id, "email": contact.email}
    data = data_of(await login(service.http, pair, somewhere), 202)
    return contact, data["challenge"], await inbox.code_for(contact.email)


async def test_the_mailed_code_opens_a_session_once(service, inbox, somewhere):
    """202 with a challenge, then challenge and code give the token; the code is used up."""
    contact, challenge, code = await challenged(service, inbox, somewhere)
    answer = await login(service.http, {"challenge": challenge, "code": code}, somewhere)
    data = data_of(answer)
    assert (data["id"], data["token_type"]) == (str(contact.id), "Bearer")
    headers = {"authorization": f"Bearer {data['token']}"}
    assert data_of(await service.http.get("/api/user/me", headers=headers))["email"] == contact.email
    again = await login(service.http, {"challenge": challenge, "code": code}, somewhere)
    refused(again, 401, "LOGIN_FAILED")


async def test_known_and_unknown_pairs_get_the_same_answer(service, inbox, somewhere):
    """Same status, same fields, a challenge each; mail only for the known, HubSpot's too."""
    contact = await make_contact(service.db)
    unmet = service.unmet()
    pairs = [
        {"student_id": contact.student_id, "email": contact.email},
        {"student_id": contact.student_id, "email": "stranger@example.com"},
        {"student_id": "9999999", "email": contact.email},
        unmet,
    ]
    answers = [await login(service.http, pair, somewhere) for pair in pairs]
    assert {each.status_code for each in answers} == {202}
    bodies = [each.json() for each in answers]
    challenges = [body["data"].pop("challenge") for body in bodies]
    assert len({len(challenge) for challenge in challenges}) == 1
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0]["data"] == {"code_required": True}
    assert {name for name, _ in answers[0].headers.items()} == {
        name for name, _ in answers[1].headers.items()
    }
    await inbox.code_for(contact.email)
    code = await inbox.code_for(unmet["email"])
    data_of(await login(service.http, {"challenge": challenges[3], "code": code}, somewhere))
    for challenge in challenges[1:3]:
        refused(
            await login(service.http, {"challenge": challenge, "code": "000000"}, somewhere),
            401,
            "LOGIN_FAILED",
        )
    assert inbox.mails == []


async def test_the_answer_waits_for_neither_hubspot_nor_the_mail(service, inbox, somewhere):
    """Otherwise its time would tell who is known."""
    unmet = service.unmet()
    await service.simulator.set(latency_ms=1500)
    try:
        began = time.monotonic()
        data_of(await login(service.http, unmet, somewhere), 202)
        assert time.monotonic() - began < 1.0
    finally:
        await service.simulator.mend()
    await inbox.code_for(unmet["email"])


async def test_five_wrong_codes_end_a_challenge(service, inbox, somewhere):
    """After them the right one is wrong too; a new challenge works."""
    contact, challenge, code = await challenged(service, inbox, somewhere)
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    for _ in range(5):
        answer = await login(service.http, {"challenge": challenge, "code": wrong}, somewhere)
        refused(answer, 401, "LOGIN_FAILED")
    answer = await login(service.http, {"challenge": challenge, "code": code}, somewhere)
    refused(answer, 401, "LOGIN_FAILED")
    pair = {"student_id": contact.student_id, "email": contact.email}
    fresh = data_of(await login(service.http, pair, somewhere), 202)["challenge"]
    code = await inbox.code_for(contact.email)
    data_of(await login(service.http, {"challenge": fresh, "code": code}, somewhere))


async def test_a_code_belongs_to_its_challenge_and_ends_after_ten_minutes(service, inbox, somewhere):
    """Another challenge, an invented one and an expired one all fail alike."""
    _, challenge, code = await challenged(service, inbox, somewhere)
    _, other, _ = await challenged(service, inbox, somewhere)
    ((seconds_left,),) = await service.run(
        "select extract(epoch from expires_at - clock_timestamp())::float"
        " from tallybook.login_challenges where id = %s",
        challenge,
    )
    assert 540 < seconds_left <= 600
    for wrong in (other, "00000000-0000-4000-8000-000000000000", "x' or 'a' = 'a"):
        answer = await login(service.http, {"challenge": wrong, "code": code}, somewhere)
        refused(answer, 401, "LOGIN_FAILED")
    await service.run(
        "update tallybook.login_challenges set expires_at = clock_timestamp() where id = %s", challenge
    )
    answer = await login(service.http, {"challenge": challenge, "code": code}, somewhere)
    refused(answer, 401, "LOGIN_FAILED")


async def test_codes_are_stored_hashed_and_logged_nowhere(service, inbox, somewhere):
    """Neither in the database nor in a log line."""
    _, challenge, code = await challenged(service, inbox, somewhere)
    ((stored,),) = await service.run(
        "select l::text from tallybook.login_challenges l where id = %s", challenge
    )
    assert code not in stored.replace(challenge, "")
    lines = [line for line in service.server.text().splitlines() if '"/api/user/login"' in line]
    assert lines
    assert not any(f'"{code}"' in line or "@" in line for line in lines)


@pytest.fixture(scope="module")
async def second(service):
    """Another server process on the same database."""
    server = Server(service.directory, service.environment)
    try:
        await server.ready()
        async with client(server.url) as http:
            yield http
    finally:
        server.stop()


async def test_ten_failures_a_minute_hold_across_processes_and_lock_nobody_out(
    service, second, inbox, somewhere
):
    """From one address five on each server, then 429 on both; the student signs in from elsewhere."""
    contact, challenge, code = await challenged(service, inbox, somewhere)
    nonsense = {"challenge": "00000000-0000-4000-8000-000000000000", "code": "000000"}
    answers = [await login(http, nonsense, somewhere) for _ in range(6) for http in (service.http, second)]
    assert [each.status_code for each in answers[:10]] == [401] * 10
    # A minute may have ended meanwhile, which forgives a failure or two.
    last = answers[-1] if answers[-1].status_code == 429 else await login(second, nonsense, somewhere)
    refused(last, 429, "RATE_LIMITED")
    assert int(last.headers["retry-after"]) >= 1
    elsewhere = {"x-forwarded-for": "198.51.100.7"}
    data_of(await login(second, {"challenge": challenge, "code": code}, elsewhere))
    pair = {"student_id": contact.student_id, "email": contact.email}
    data_of(await login(second, pair, elsewhere), 202)


async def test_the_limit_of_a_person_holds_across_processes(service, second, inbox, somewhere):
    """65 calls on each of two servers are 130 of this student's."""
    _, challenge, code = await challenged(service, inbox, somewhere)
    token = data_of(await login(service.http, {"challenge": challenge, "code": code}, somewhere))["token"]
    headers = {"authorization": f"Bearer {token}"}
    answers = await asyncio.gather(
        *(http.get("/api/user/me", headers=headers) for http in (service.http, second) for _ in range(65))
    )
    statuses = [each.status_code for each in answers]
    assert set(statuses) == {200, 429}
    assert 119 <= statuses.count(200) <= 124
