"""Whatever id was given out leads to its session or booking, also when HubSpot has made the record anew."""

import pytest

from support.factories import book, cancel, make_contact, make_mock_exam


@pytest.mark.parametrize("table", ["mock_exams", "bookings"])
async def test_an_old_record_id_still_leads_to_it(db, owner, table):
    contact = await make_contact(db, credits={"sj_credits": 2})
    exam = await make_mock_exam(db)
    booking = (await book(db, contact, exam))["id"]
    wanted = {"mock_exams": str(exam.id), "bookings": booking}[table]
    find = {"mock_exams": "find_mock_exam", "bookings": "find_booking"}[table]
    for hubspot_id in ("990001", None, "990002", "990003"):
        await owner.execute(
            f"update tallybook.{table} set hubspot_id = %s where id = %s", (hubspot_id, wanted)
        )
    for ref in ("990001", "990002", "990003", wanted):
        cursor = await owner.execute(f"select tallybook.{find}(%s)", (ref,))
        assert str((await cursor.fetchone())[0]) == wanted
    if table == "bookings":
        assert (await cancel(db, contact, "990001"))["id"] == booking
