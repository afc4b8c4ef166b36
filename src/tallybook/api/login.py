"""Signing in and out. With codes by mail every pair gets the same answer in the same time, known or not."""

from __future__ import annotations

from datetime import UTC

import msgspec

from tallybook.api.addresses import client_address
from tallybook.api.problems import invalid
from tallybook.api.replies import Reply, success, success_of
from tallybook.api.requests import LoginBody
from tallybook.api.route import Call
from tallybook.api.services import Services
from tallybook.api.student_pair import pair_of
from tallybook.api.tokens import LIFETIME
from tallybook.domain.contacts import Pair
from tallybook.domain.errors import SetupError
from tallybook.usecases import sign_in
from tallybook.usecases.sign_in import SignedIn

_SUBJECT = "Your sign-in code"
_TEXT = """Your sign-in code is {code}

It is good for 10 minutes and for the page where you asked for it.
If you did not ask for it, you need not do anything: nobody can sign in without this code.
"""


async def login(services: Services, call: Call) -> Reply:
    """Exchange student ID and e-mail, or a challenge and its code, for a token."""
    deps, body = services.deps, call.body
    address = client_address(call.scope, trusted_proxies=deps.config.trusted_proxies)
    if body.challenge is not None or body.code is not None:
        _check_is_code(body)
        signed_in = await sign_in.redeem_code(
            deps.db, challenge=body.challenge, code=body.code, address=address
        )
        return _token(services, signed_in)
    for field in ("student_id", "email"):
        if getattr(body, field) is None:
            raise invalid(field, "is required")
    pair = Pair.parse(body.student_id, body.email)
    if not deps.config.login_code:
        return _token(services, await sign_in.sign_in(deps.db, deps.students, pair=pair, address=address))
    challenge = await sign_in.begin_challenge(deps.db, address=address)
    services.background.start(_mail_code(services, challenge, pair), name="mail_sign_in_code")
    return success_of(
        {"code_required": True, "challenge": challenge},
        status=202,
        message="If we know you, a code is on its way to your e-mail address.",
    )


async def logout(services: Services, call: Call) -> Reply:
    """End all sessions of the student."""
    deps = services.deps
    await sign_in.end_sessions(deps.db, deps.students, caller=call.caller, pair=pair_of(call))
    return success(b"{}", message="You are signed out.")


def _check_is_code(body: LoginBody) -> None:
    for field in ("challenge", "code"):
        if getattr(body, field) is None:
            raise invalid(field, "is required: challenge and code go together")
    for field in ("student_id", "email"):
        if getattr(body, field) is not None:
            raise invalid(field, "does not go together with a challenge")


def _token(services: Services, signed_in: SignedIn) -> Reply:
    token, ends_at = services.tokens.issue(
        contact_id=signed_in.contact_id, epoch=signed_in.epoch, hubspot_id=signed_in.hubspot_id
    )
    session = {
        "token": token,
        "token_type": "Bearer",
        "expires_in": int(LIFETIME.total_seconds()),
        "expires_at": ends_at.astimezone(UTC),
    }
    # Two objects of JSON made one: the token first, then the profile as PostgreSQL wrote it.
    data = msgspec.json.encode(session)[:-1] + b"," + signed_in.profile.lstrip()[1:]
    reply = success(data)
    reply.contact_id = signed_in.contact_id
    return reply


async def _mail_code(services: Services, challenge: str, pair: Pair) -> None:
    deps = services.deps
    mail = await sign_in.prepare_code(deps.db, deps.students, challenge=challenge, pair=pair)
    if mail is None:
        return
    if deps.mailer is None:
        raise SetupError(
            "TALLYBOOK_LOGIN_CODE=email needs a mail server.",
            hint="Set TALLYBOOK_SMTP_URL and TALLYBOOK_MAIL_FROM.",
        )
    await deps.mailer.send(to=mail.email, subject=_SUBJECT, text=_TEXT.format(code=mail.code))
