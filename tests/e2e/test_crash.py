"""kill -9 of the server in the middle of bookings: what was answered is there, what is there adds up."""

import asyncio
from collections import Counter

import httpx

from e2e.service import data_of
from support.factories import make_contacts, make_mock_exam
from tallybook.usecases.verify import verify

STUDENTS = 200


async def test_a_killed_server_loses_no_booking_it_has_answered(service):
    """200 bookings with a key each, killed after some; after the restart a retry completes them all, once."""
    contacts = await make_contacts(service.db, STUDENTS, credits={"sj_credits": 1})
    exam = await make_mock_exam(service.db, capacity=STUDENTS)
    answered = asyncio.Semaphore(0)

    async def book(contact):
        body = {"student_id": contact.student_id, "email": contact.email, "mock_exam_id": str(exam.id)}
        headers = service.as_app | {"idempotency-key": f"once-{contact.student_id}"}
        try:
            answer = await service.http.post("/api/bookings/create", json=body, headers=headers)
        except httpx.TransportError:
            return None
        answered.release()
        return data_of(answer, 201)

    bookings = [asyncio.ensure_future(book(contact)) for contact in contacts]
    for _ in range(40):
        await answered.acquire()
    service.server.kill()
    before = await asyncio.gather(*bookings)
    promised = {each["id"] for each in before if each is not None}
    print(f"{len(promised)} of {STUDENTS} were answered before the kill")
    assert 40 <= len(promised) < STUDENTS

    await service.restart()
    await service.expect_clean()
    stored = {str(row[0]) for row in await service.run("select id from tallybook.bookings")}
    assert promised <= stored

    after = [await book(contact) for contact in contacts]
    for earlier, later in zip(before, after, strict=True):
        assert earlier is None or earlier == later
    assert len({each["id"] for each in after}) == STUDENTS
    report = await verify(service.db)
    assert not report.violations
    rows = await service.run(
        "select b.balance, e.total_bookings from tallybook.credit_balances b, tallybook.mock_exams e"
        " where b.credit_type = 'sj_credits' and e.id = %s",
        exam.id,
    )
    assert Counter(rows) == {(0, STUDENTS): STUDENTS}
