"""The addresses for other programs: each takes the request apart, calls one use case and wraps its answer."""

from __future__ import annotations

from tallybook.api.action_requests import Payment
from tallybook.api.problems import invalid
from tallybook.api.replies import Reply, success
from tallybook.api.route import Call
from tallybook.api.services import Services
from tallybook.api.student_pair import idempotency_of
from tallybook.domain.contacts import parse_contact_ref
from tallybook.postgres.answers import Answer
from tallybook.usecases.charge_actions import charge_actions
from tallybook.usecases.check_actions import check_actions
from tallybook.usecases.close_hold import capture_hold, release_hold
from tallybook.usecases.create_contact import create_contact
from tallybook.usecases.hold_credits import hold_credits
from tallybook.usecases.metered import ActionUse
from tallybook.usecases.refund_use import refund_use
from tallybook.usecases.show_contact_credits import list_costs, list_entries, show_contact_credits


def _reply(answer: Answer) -> Reply:
    status = 201 if answer.outcome == "created" else 200
    return success(answer.data, status=status, replayed=answer.replayed)


def _contact(text: str) -> str:
    parse_contact_ref(text)
    return text.strip()


def _actions(body: Payment) -> tuple[ActionUse, ...]:
    if body.actions is not None:
        if body.action is not None or body.quantity != 1:
            raise invalid("actions", "must not be given beside action and quantity")
        return tuple(ActionUse(each.action, each.quantity) for each in body.actions)
    if body.action is None:
        raise invalid("action", "is missing")
    return (ActionUse(body.action, body.quantity),)


async def costs(services: Services, call: Call) -> Reply:
    """The price list."""
    del call
    return _reply(await list_costs(services.deps.db))


async def check(services: Services, call: Call) -> Reply:
    """Could this be paid now?"""
    body = call.body
    return _reply(
        await check_actions(services.deps.db, contact=_contact(body.contact), actions=_actions(body))
    )


async def charge(services: Services, call: Call) -> Reply:
    """Take credits."""
    body = call.body
    answer = await charge_actions(
        services.deps.db,
        contact=_contact(body.contact),
        actions=_actions(body),
        actor=call.caller.credential,
        metadata=body.metadata,
        idempotency=None if body.dry_run else idempotency_of(call),
        dry_run=body.dry_run,
    )
    return _reply(answer)


async def hold(services: Services, call: Call) -> Reply:
    """Set credits aside."""
    body = call.body
    answer = await hold_credits(
        services.deps.db,
        contact=_contact(body.contact),
        actions=_actions(body),
        actor=call.caller.credential,
        expires_in_s=body.expires_in_s,
        metadata=body.metadata,
        idempotency=None if body.dry_run else idempotency_of(call),
        dry_run=body.dry_run,
    )
    return _reply(answer)


async def capture(services: Services, call: Call) -> Reply:
    """Take what was held."""
    body = call.body
    answer = await capture_hold(
        services.deps.db,
        hold=call.params["hold"],
        actor=call.caller.credential,
        credits=body.credits,
        metadata=body.metadata,
        idempotency=None if body.dry_run else idempotency_of(call),
        dry_run=body.dry_run,
    )
    return _reply(answer)


async def release(services: Services, call: Call) -> Reply:
    """Give back what was held."""
    answer = await release_hold(
        services.deps.db,
        hold=call.params["hold"],
        actor=call.caller.credential,
        idempotency=None if call.body.dry_run else idempotency_of(call),
        dry_run=call.body.dry_run,
    )
    return _reply(answer)


async def refund(services: Services, call: Call) -> Reply:
    """Give back what was taken."""
    answer = await refund_use(
        services.deps.db,
        entry_id=call.body.entry_id,
        actor=call.caller.credential,
        idempotency=None if call.body.dry_run else idempotency_of(call),
        dry_run=call.body.dry_run,
    )
    return _reply(answer)


async def contact(services: Services, call: Call) -> Reply:
    """Find or create a person."""
    body = call.body
    answer = await create_contact(
        services.deps.db,
        email=body.email,
        firstname=body.firstname,
        lastname=body.lastname,
        external_id=body.external_id,
        actor=call.caller.credential,
        dry_run=body.dry_run,
    )
    return _reply(answer)


async def contact_credits(services: Services, call: Call) -> Reply:
    """All balances of a contact."""
    return _reply(await show_contact_credits(services.deps.db, contact=_contact(call.params["contact"])))


async def contact_entries(services: Services, call: Call) -> Reply:
    """The ledger of a contact."""
    query = call.query
    answer = await list_entries(
        services.deps.db,
        contact=_contact(call.params["contact"]),
        page=query.page,
        per_page=query.per_page,
        action=query.action_filter,
    )
    return _reply(answer)
