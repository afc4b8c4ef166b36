"""The addresses for staff: signing in, and what they see of the mirror and decide about it."""

from __future__ import annotations

from datetime import UTC
from uuid import UUID

import msgspec

from tallybook.api.addresses import client_address
from tallybook.api.replies import Reply, success, success_of
from tallybook.api.route import Call
from tallybook.api.services import Services
from tallybook.api.setup_errors import tell_setup_errors
from tallybook.api.staff_tokens import LIFETIME
from tallybook.domain.errors import NotFound
from tallybook.postgres.answers import Answer
from tallybook.usecases.discard_dead_letter import discard_dead_letter
from tallybook.usecases.list_conflicts import list_conflicts
from tallybook.usecases.list_dead_letters import LetterType, list_dead_letters
from tallybook.usecases.resolve_conflict import Choice, resolve_conflict
from tallybook.usecases.resume_lane import resume_lane
from tallybook.usecases.retry_dead_letters import retry_all_dead_letters, retry_dead_letter
from tallybook.usecases.show_contact_credits import show_contact_credits
from tallybook.usecases.show_sync_status import show_sync_status
from tallybook.usecases.sign_in_staff import sign_in_staff, sign_out_staff

_LARGEST_ID = 2**63 - 1


async def login(services: Services, call: Call) -> Reply:
    """Exchange e-mail and password of a local account for a token."""
    deps, body = services.deps, call.body
    address = client_address(call.scope, trusted_proxies=deps.config.trusted_proxies)
    staff = await sign_in_staff(deps.db, email=body.email, password=body.password, address=address)
    token, ends_at = services.staff_tokens.issue(staff_id=staff.id, epoch=staff.epoch)
    return success_of(
        {
            "token": token,
            "token_type": "Bearer",
            "expires_in": int(LIFETIME.total_seconds()),
            "expires_at": ends_at.astimezone(UTC),
            "id": staff.id,
            "email": staff.email,
            "name": staff.name,
            "role": staff.role.value,
        }
    )


async def logout(services: Services, call: Call) -> Reply:
    """End all sessions of the account."""
    await sign_out_staff(services.deps.db, UUID(call.caller.credential.removeprefix("staff:")))
    return success(b"{}", message="You are signed out.")


async def sync_status(services: Services, _call: Call) -> Reply:
    """How the mirror stands."""
    return success_of(await show_sync_status(services.deps.db))


async def conflicts(services: Services, call: Call) -> Reply:
    """A page of conflicts."""
    query = call.query
    return success_of(
        await list_conflicts(
            services.deps.db,
            object_type=query.object_type or None,
            kind=query.kind,
            with_resolved=query.resolved,
            page=query.page,
            limit=query.limit,
        )
    )


async def resolve(services: Services, call: Call) -> Reply:
    """Settle a conflict."""
    number, body = call.params["conflict"], call.body
    if not (number.isascii() and number.isdigit() and int(number) <= _LARGEST_ID):
        raise NotFound
    answer = await resolve_conflict(
        services.deps.db,
        conflict_id=int(number),
        choice=Choice(body.choice),
        value=body.value,
        reason=body.reason,
        actor=call.caller.credential,
    )
    return _reply(answer)


async def dead_letters(services: Services, call: Call) -> Reply:
    """A page of dead letters."""
    query = call.query
    return success_of(
        await list_dead_letters(
            services.deps.db, letter_type=query.type or None, page=query.page, limit=query.limit
        )
    )


async def retry(services: Services, call: Call) -> Reply:
    """Try one dead letter again."""
    return success(
        (
            await retry_dead_letter(
                services.deps.db, letter_type=_letter_type(call), letter_id=call.params["letter"]
            )
        ).data
    )


async def retry_all(services: Services, _call: Call) -> Reply:
    """Try all dead letters again."""
    return success_of({"retried": await retry_all_dead_letters(services.deps.db)})


async def discard(services: Services, call: Call) -> Reply:
    """Give one dead letter up."""
    answer = await discard_dead_letter(
        services.deps.db,
        letter_type=_letter_type(call),
        letter_id=call.params["letter"],
        reason=call.body.reason,
        actor=call.caller.credential,
    )
    return success(answer.data)


async def resume(services: Services, call: Call) -> Reply:
    """Let a paused lane go on."""
    return _reply(await resume_lane(services.deps.db, lane=call.params["lane"], actor=call.caller.credential))


async def reconcile(services: Services, call: Call) -> Reply:
    """Compare both sides for a while."""
    if services.deps.reconcile is None:
        raise NotFound
    work = services.deps.reconcile(call.body.max_s, call.body.repair)
    return success_of(dict(await tell_setup_errors(work)))


async def refresh_contact(services: Services, call: Call) -> Reply:
    """Forget what was read of a contact and read it again, by merging."""
    deps = services.deps
    if deps.refresh_contact is None:
        raise NotFound
    named = call.params["student_id"]
    # A student ID may look like a HubSpot id; at this address it is a student ID.
    is_other = ":" in named or "-" in named
    work = deps.refresh_contact(named if is_other else f"student:{named}")
    contact_id = await tell_setup_errors(work)
    answer = await show_contact_credits(deps.db, contact=str(contact_id))
    reply = success(answer.data, message="Read again from HubSpot.")
    reply.contact_id = contact_id
    return reply


def _letter_type(call: Call) -> LetterType:
    try:
        return LetterType(call.params["type"])
    except ValueError:
        raise NotFound from None


def _reply(answer: Answer) -> Reply:
    if answer.outcome != "already":
        return success(answer.data)
    return success_of({**msgspec.json.decode(answer.data, type=dict[str, object]), "idempotent": True})
