"""The job that watches the mirror and tells people elsewhere when something has passed its limit."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tallybook.domain.errors import Unavailable
from tallybook.jobs.lease import JobResult
from tallybook.outbound.alerts import AlertSender
from tallybook.postgres.pool import Database
from tallybook.usecases.claim_alerts import ClaimedAlert, claim_alert, settle_alert
from tallybook.usecases.watch_mirror import AlertLimits, watch_mirror

JOB = "send-alerts"

_DEFAULT_LIMITS = AlertLimits()
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 600.0
# Alerts leave the house: words, numbers and ids may; sentences and addresses may not, whoever wrote them.
_HARMLESS = re.compile(r"[A-Za-z0-9_.:+-]{1,80}")


async def send_alerts(
    db: Database,
    sender: AlertSender | None,
    *,
    limits: AlertLimits = _DEFAULT_LIMITS,
    max_s: float = 20.0,
) -> JobResult:
    """Raises and clears what follows from the limits, then sends each opened and each cleared alert once.

    Without a sender alerts are only kept, for `sync status` and `/metrics`. What the receiver does not take
    stays for the next run. Several processes may do this at once. Raises DatabaseUnavailable.
    """
    ends_at = time.monotonic() + max_s
    await watch_mirror(db, limits)
    sent = 0
    while sender is not None:
        alert = await claim_alert(db)
        if alert is None:
            break
        if not await _send(db, sender, alert):
            # The next one would meet the same silence.
            return JobResult({"sent": sent, "failed": 1}, done=False)
        sent += 1
        if time.monotonic() >= ends_at:
            return JobResult({"sent": sent, "failed": 0}, done=False)
    return JobResult({"sent": sent, "failed": 0})


async def _send(db: Database, sender: AlertSender, alert: ClaimedAlert) -> bool:
    try:
        await sender.send(message_of(alert))
    except Unavailable as error:
        again_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(alert.attempts, 10))
        problem = str(error.details.get("problem", error.code))
        await settle_alert(db, alert, problem=problem, again_s=again_s)
        return False
    await settle_alert(db, alert)
    return True


def message_of(alert: ClaimedAlert) -> dict[str, Any]:
    """What is sent: the same `id` for the same state, so that a repeat can be recognised."""
    since = _instant(alert.raised_at)
    subject = alert.subject if _HARMLESS.fullmatch(alert.subject) else ""
    name = f"{alert.kind} ({subject})" if subject else alert.kind
    details = harmless(alert.details)
    told = ", ".join(f"{key} {value}" for key, value in details.items())
    message: dict[str, Any] = {
        "id": f"{alert.kind}:{subject}:{alert.raised_at.timestamp():.6f}:{alert.state}",
        "event": f"alert.{alert.state}",
        "kind": alert.kind,
        "subject": subject,
        "since": since,
        "details": details,
        "text": f"Tallybook: {name} {'is over' if alert.cleared_at else f'since {since}'}"
        + (f": {told}" if told and alert.cleared_at is None else ""),
    }
    if alert.cleared_at is not None:
        message["cleared_at"] = _instant(alert.cleared_at)
    return message


def harmless(details: bytes) -> dict[str, Any]:
    """Those details that cannot name a person."""
    found: Mapping[str, Any] = msgspec.json.decode(details, type=dict[str, Any])
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, bool | int | float) or (isinstance(value, str) and _HARMLESS.fullmatch(value))
    }


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
