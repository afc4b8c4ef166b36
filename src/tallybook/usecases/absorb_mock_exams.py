"""Merges mock exams as HubSpot shows them into ours."""

from __future__ import annotations

from collections.abc import Sequence

from tallybook.hubspot.records import Record
from tallybook.hubspot.session_fields import parse_mock_exam, schedule_of
from tallybook.usecases.absorb_answers import NEED, Taken, absorb_answers, pulled
from tallybook.usecases.mirror import Mirror, Pulled

# Ours may change between two rounds, but not for ever.
_ROUNDS = 3


async def absorb_mock_exams(mirror: Mirror, records: Sequence[Record], *, importing: bool = False) -> Pulled:
    """Merges each field by itself; what our rules refuse waits for a person.

    While `importing`, the number of bookings is not told to HubSpot: it is not yet what it will be.
    """
    answers = {
        record.id: parse_mock_exam(record, mirror.catalog, default_zone=mirror.time_zone).to_absorb()
        for record in records
    }
    done: dict[str, Taken] = {}
    left = list(answers)
    for _ in range(_ROUNDS):
        batch = [answers[hubspot_id] for hubspot_id in left]
        for taken in await absorb_answers(mirror.db, "mock_exams", batch, importing=importing):
            done[taken.hubspot_id] = taken
        left = [hubspot_id for hubspot_id in left if done[hubspot_id].outcome == NEED]
        for hubspot_id in left:
            # A part of the schedule is ours, a part theirs: which instants both mean together.
            answers[hubspot_id]["schedule"] = schedule_of(
                done[hubspot_id].need["schedule"], mirror.catalog, default_zone=mirror.time_zone
            )
        if not left:
            break
    return pulled(done.values(), read=len(records))
