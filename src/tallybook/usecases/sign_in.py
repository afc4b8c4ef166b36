"""Signing in with the pair, with or without a mailed code, and signing out everywhere."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from uuid import UUID

import msgspec

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.domain.errors import StudentNotFound
from tallybook.postgres.answers import Answer, StudentNotStored
from tallybook.postgres.pool import Database
from tallybook.usecases.find_student import Students
from tallybook.usecases.show_student import show_student


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A student who may have a token. `profile` is JSON."""

    contact_id: UUID
    epoch: int
    hubspot_id: str | None
    profile: bytes


@dataclass(frozen=True, slots=True)
class CodeMail:
    """A code that has to reach a student's mailbox, and nobody else."""

    code: str
    email: str


class _Session(msgspec.Struct):
    contact_id: UUID
    epoch: int
    hubspot_id: str | None
    profile: msgspec.Raw


class _Identified(msgspec.Struct):
    id: UUID


async def sign_in(db: Database, students: Students, *, pair: Pair, address: str) -> SignedIn:
    """Signs in with the pair alone. Raises StudentNotFound (counted against the address) and RateLimited."""
    params = {"student_id": pair.student_id, "email": pair.email, "address": address}
    try:
        return _signed_in(await db.answer("sign_in", params))
    except StudentNotStored:
        pass
    try:
        await students.fetch(pair=pair, hubspot_id=None, signed=False)
        return _signed_in(await db.answer("sign_in", params))
    except (StudentNotFound, StudentNotStored) as error:
        await db.fetch_all("count_login_failure", {"address": address})
        raise StudentNotFound from error


async def begin_challenge(db: Database, *, address: str) -> str:
    """Opens a challenge, for whomever it turns out to be; gives its id. Raises RateLimited."""
    answer = await db.answer("begin_challenge", {"address": address})
    return str(msgspec.json.decode(answer.data, type=dict[str, str])["challenge"])


async def prepare_code(db: Database, students: Students, *, challenge: str, pair: Pair) -> CodeMail | None:
    """Binds a new six-digit code to the challenge if the pair is a student; None when it is nobody."""
    code = f"{secrets.randbelow(1_000_000):06d}"
    params = {
        "challenge": challenge,
        "student_id": pair.student_id,
        "email": pair.email,
        "code_hash": _hash(challenge, code),
    }
    try:
        try:
            answer = await db.answer("prepare_code", params)
        except StudentNotStored:
            await students.fetch(pair=pair, hubspot_id=None, signed=False)
            answer = await db.answer("prepare_code", params)
    except (StudentNotFound, StudentNotStored):
        return None
    return CodeMail(code, msgspec.json.decode(answer.data, type=dict[str, str])["email"])


async def redeem_code(db: Database, *, challenge: str, code: str, address: str) -> SignedIn:
    """Signs in with the mailed code; five tries in ten minutes, once. Raises LoginFailed, RateLimited."""
    answer = await db.answer(
        "redeem_code", {"challenge": challenge, "code_hash": _hash(challenge, code), "address": address}
    )
    return _signed_in(answer)


async def end_sessions(db: Database, students: Students, *, caller: Caller, pair: Pair | None) -> None:
    """Signs the student out everywhere. Raises Forbidden for another's pair, and as `ask`."""
    profile = await show_student(db, students, caller=caller, pair=pair)
    contact_id = msgspec.json.decode(profile.data, type=_Identified).id
    await db.answer("end_sessions", {"contact_id": contact_id, "epoch": caller.epoch})


def _signed_in(answer: Answer) -> SignedIn:
    session = msgspec.json.decode(answer.data, type=_Session)
    return SignedIn(session.contact_id, session.epoch, session.hubspot_id, bytes(session.profile))


def _hash(challenge: str, code: str) -> bytes:
    # Bound to its challenge; six digits live ten minutes and five tries, so a slow hash would add nothing.
    return hashlib.sha256(f"{challenge}:{code}".encode()).digest()
