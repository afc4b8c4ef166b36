from support.factories import book, cancel, make_contact, make_mock_exam, move
from tallybook.usecases.verify import verify


async def test_a_database_with_bookings_of_every_state_is_clean(db):
    """Booked, moved, cancelled, booked again and overridden: every number adds up."""
    contact = await make_contact(db, credits={"sj_credits": 2, "shared_mock_credits": 1, "credits": 50})
    first, second = [await make_mock_exam(db, days=d) for d in (3, 4)]
    booking = await book(db, contact, first, key="k1")
    await move(db, contact, booking, second)
    await cancel(db, contact, booking)
    await book(db, contact, second)
    await book(db, contact, first, override="the room was double-booked")
    report = await verify(db)
    assert report.ok()
    assert report.counts["bookings"] == 3
    assert report.counts["entries"] == 6
    assert report.lag.waiting > 0
    assert not report.ok(strict=True)
