"""The names existing Supabase clients use: old parameters, new rules."""

import asyncio
import json

import psycopg
import pytest

from support.factories import balances, book, cancel, make_contact, make_local_contact, make_mock_exam

OLD_COLUMNS = {
    "hubspot_contact_credits": """
        id hubspot_id student_id email firstname lastname sj_credits cs_credits sjmini_credits
        mock_discussion_token shared_mock_credits ndecc_exam_date created_at updated_at synced_at""",
    "hubspot_mock_exams": """
        id hubspot_id mock_exam_name mock_type mock_set exam_date start_time end_time location capacity
        total_bookings is_active scheduled_activation_datetime prerequisite_exam_ids created_at updated_at
        synced_at""",
    "hubspot_bookings": """
        id hubspot_id booking_id associated_mock_exam associated_contact_id student_id name student_email
        booking_status is_active attendance attending_location exam_date dominant_hand token_used
        token_refunded token_refunded_at token_refund_admin start_time end_time ndecc_exam_date
        idempotency_key mock_type mock_set created_at updated_at synced_at hubspot_last_sync_at""",
}


@pytest.fixture
async def service(as_role):
    """An old client: service_role with the search path it has always set."""
    connection = await as_role("service_role")
    await connection.execute("set search_path = tallybook")
    return connection


async def _call(connection, function, **arguments):
    """Calls by the old parameter names."""
    names = ", ".join(f"{name} => %({name})s" for name in arguments)
    row = await (await connection.execute(f"select to_jsonb({function}({names}))", arguments)).fetchone()
    return row[0]


def _old_booking(contact, exam, **changes):
    """What the old front end sends, with the balance it computed."""
    return {
        "p_booking_id": "Situational Judgment-1-March 1, 2026",
        "p_student_id": contact.student_id,
        "p_student_email": contact.email,
        "p_mock_exam_id": exam.hubspot_id or str(exam.id),
        "p_student_name": "Ada Lovelace",
        "p_token_used": "Situational Judgment Token",
        "p_attending_location": "mississauga",
        "p_dominant_hand": "true",
        "p_idempotency_key": "idem_1",
        "p_credit_field": "sj_credits",
        "p_new_credit_value": 41,
        "p_mock_set": "A",
    } | changes


async def _refused(connection, function, **arguments):
    with pytest.raises(psycopg.Error) as refused:
        await _call(connection, function, **arguments)
    assert refused.value.sqlstate == "P0001"
    return refused.value.diag.message_primary, json.loads(refused.value.diag.message_detail)


async def test_numbers_the_caller_computed_are_never_used(db, service):
    """Booking spends one credit whatever balance, booking id and field the caller sends."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    exam = await make_mock_exam(db, hubspot_id="9001")
    arguments = _old_booking(contact, exam, p_credit_field="cs_credits", p_new_credit_value=999)
    answer = await _call(service, "create_booking_atomic", **arguments)
    assert answer["success"] is True
    assert answer["booking_code"].startswith(f"Situational Judgment-{contact.student_id}-")
    assert (answer["contact_hubspot_id"], answer["mock_exam_hubspot_id"]) == (contact.hubspot_id, "9001")
    assert await balances(db, contact) | {"sj_credits": 1, "cs_credits": 0} == await balances(db, contact)


async def test_a_negative_balance_from_the_caller_is_never_used(db, service):
    """A caller who computed -1 has no credit: the refusal says what is there."""
    contact = await make_contact(db, credits={})
    exam = await make_mock_exam(db)
    code, details = await _refused(
        service, "create_booking_atomic", **_old_booking(contact, exam, p_new_credit_value=-1)
    )
    assert code == "INSUFFICIENT_CREDITS"
    assert [each["available"] for each in details["credits"]] == [0, 0]


@pytest.mark.parametrize("token", ["Clinical Skills Token", "Mini-mock Token", "Admin Override", "nonsense"])
async def test_a_token_that_cannot_pay_is_refused(db, service, token):
    """The old system spent whatever the caller named."""
    contact = await make_contact(db, credits={"sj_credits": 2, "cs_credits": 2})
    arguments = _old_booking(contact, await make_mock_exam(db), p_token_used=token)
    code, details = await _refused(service, "create_booking_atomic", **arguments)
    assert (code, details["field"]) == ("VALIDATION_ERROR", "p_token_used")
    assert (await balances(db, contact))["cs_credits"] == 2


async def test_the_same_key_gives_the_first_booking(db, service):
    """A retry is answered with the booking that is there, and checks find it."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    exam = await make_mock_exam(db)
    assert await _call(service, "check_idempotency_key", p_idempotency_key="idem_1") is None
    first = await _call(service, "create_booking_atomic", **_old_booking(contact, exam))
    again = await _call(service, "create_booking_atomic", **_old_booking(contact, exam))
    assert again == first
    found = await _call(service, "check_idempotency_key", p_idempotency_key="idem_1")
    assert (found["found"], found["id"], found["is_active"]) == (True, first["booking_id"], "Active")
    assert (await balances(db, contact))["sj_credits"] == 1


async def test_the_derived_label_is_found_as_a_key_too(db, service):
    """`bookings.idempotency_key` is what old code reads and looks up."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    booking = await book(db, contact, await make_mock_exam(db))
    row = await _call(service, "get_booking", p_id=booking["id"])
    found = await _call(service, "check_idempotency_key", p_idempotency_key=row["idempotency_key"])
    assert found["id"] == booking["id"]


async def test_twenty_clients_with_one_key_make_one_booking(db, as_role):
    """Sent 20 times at once, one booking is made and 20 get it; nobody sees 23505."""
    contact = await make_contact(db, credits={"sj_credits": 20})
    exam = await make_mock_exam(db)
    clients = [await as_role("service_role") for _ in range(20)]
    arguments = _old_booking(contact, exam)
    answers = await asyncio.gather(
        *(_call(each, "tallybook.create_booking_atomic", **arguments) for each in clients)
    )
    assert len({answer["booking_id"] for answer in answers}) == 1
    assert (await balances(db, contact))["sj_credits"] == 19


async def test_a_duplicate_is_never_23505(db, as_role):
    """20 clients with 20 keys: one booking, 19 refusals that old clients do not take for success."""
    contact = await make_contact(db, credits={"sj_credits": 20})
    exam = await make_mock_exam(db)

    async def attempt(n):
        client = await as_role("service_role")
        arguments = _old_booking(contact, exam, p_idempotency_key=f"idem_{n}")
        try:
            await _call(client, "tallybook.create_booking_atomic", **arguments)
        except psycopg.Error as error:
            return error.sqlstate, error.diag.message_primary
        return "booked"

    outcomes = await asyncio.gather(*(attempt(n) for n in range(20)))
    assert outcomes.count("booked") == 1
    assert outcomes.count(("P0001", "DUPLICATE_BOOKING")) == 19


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"p_mock_exam_id": "424242"}, "EXAM_NOT_FOUND"),
        ({"p_mock_exam_id": "' or true --"}, "EXAM_NOT_FOUND"),
        ({"p_mock_exam_id": None}, "EXAM_NOT_FOUND"),
        ({"p_student_email": "nobody@example.com"}, "CONTACT_NOT_FOUND"),
        ({"p_student_id": "0"}, "CONTACT_NOT_FOUND"),
        ({"p_student_id": None, "p_student_email": None}, "CONTACT_NOT_FOUND"),
    ],
)
async def test_refusals_carry_our_code(db, service, change, code):
    """SQLSTATE P0001, the code as the message, JSON in DETAIL."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    arguments = _old_booking(contact, await make_mock_exam(db), **change)
    assert (await _refused(service, "create_booking_atomic", **arguments))[0] == code


@pytest.mark.parametrize(
    ("exam", "code"),
    [
        ({"activation": "inactive"}, "EXAM_NOT_ACTIVE"),
        ({"days": -1}, "EXAM_IN_PAST"),
    ],
)
async def test_all_rules_apply_to_old_names(db, service, exam, code):
    """Inactive and past sessions could be booked by id before."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    arguments = _old_booking(contact, await make_mock_exam(db, **exam))
    assert (await _refused(service, "create_booking_atomic", **arguments))[0] == code


async def test_a_balance_hubspot_has_not_told_is_not_zero(db, service):
    """Nobody behind the old names can ask HubSpot: the refusal says try again, not no credits."""
    contact = await make_contact(db, credits=None)
    code, _ = await _refused(
        service, "create_booking_atomic", **_old_booking(contact, await make_mock_exam(db))
    )
    assert code == "CRM_BUSY"


async def test_cancelling_twice_restores_once(db, service):
    """The old function restored again whatever number it was told."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    booking = await _call(service, "create_booking_atomic", **_old_booking(contact, await make_mock_exam(db)))
    arguments = {
        "p_booking_id": booking["booking_id"],
        "p_credit_field": "cs_credits",
        "p_restored_credit_value": 60,
    }
    first = await _call(service, "cancel_booking_atomic", **arguments)
    second = await _call(service, "cancel_booking_atomic", **arguments)
    assert (first["success"], first["credits_restored"], second["idempotent"]) == (True, 1, True)
    assert await balances(db, contact) | {"sj_credits": 1, "cs_credits": 0} == await balances(db, contact)


async def test_cancelling_what_does_not_exist_is_refused(service):
    """An unknown UUID is BOOKING_NOT_FOUND."""
    code, _ = await _refused(
        service, "cancel_booking_atomic", p_booking_id="00000000-0000-4000-8000-000000000000"
    )
    assert code == "BOOKING_NOT_FOUND"


async def test_contacts_are_found_by_each_old_parameter(db, service):
    """UUID first, then HubSpot id, then the pair in any case; else a refusal instead of a broken query."""
    contact = await make_contact(db, credits={"sj_credits": 4}, student_id="AB12")
    for arguments in (
        {"p_id": contact.id},
        {"p_hubspot_id": contact.hubspot_id},
        {"p_student_id": " ab12", "p_email": contact.email.upper()},
        {"p_id": contact.id, "p_hubspot_id": "5", "p_student_id": "X", "p_email": "x"},
    ):
        row = await _call(service, "get_contact_credits", **arguments)
        assert (row["id"], row["sj_credits"]) == (str(contact.id), 4)
    assert (await _refused(service, "get_contact_credits", p_hubspot_id="5"))[0] == "CONTACT_NOT_FOUND"
    assert (await _refused(service, "get_contact_credits"))[0] == "CONTACT_NOT_FOUND"


async def test_bookings_are_found_by_each_old_parameter(db, service):
    """By UUID or by the text people read."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    booking = await book(db, contact, await make_mock_exam(db))
    for arguments in ({"p_id": booking["id"]}, {"p_booking_id": booking["booking_id"]}):
        row = await _call(service, "get_booking", **arguments)
        assert (row["id"], row["student_email"], row["token_used"]) == (
            booking["id"],
            contact.email,
            "Situational Judgment Token",
        )
    assert (await _refused(service, "get_booking", p_hubspot_id="5"))[0] == "BOOKING_NOT_FOUND"


@pytest.mark.parametrize("how", ["student:{0.student_id}", "email:{0.email}", "{0.hubspot_id}", "{0.id}"])
async def test_people_at_the_sql_editor_grant_with_a_reason(db, service, how):
    """A grant is an entry with a reason, whichever way the contact is named."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    answer = await _call(
        service, "grant_credits", p_contact=how.format(contact), p_type="sj_credits", p_n=2, p_reason="sorry"
    )
    assert answer["balance_after"] == 3
    assert (await balances(db, contact))["sj_credits"] == 3


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (("student:{0.student_id}", "sj_credits", -2, "too many"), "BALANCE_TOO_LOW"),
        (("student:{0.student_id}", "sj_credits", 2_147_483_647, "rich"), "VALIDATION_ERROR"),
        (("student:{0.student_id}", "gold", 1, "shiny"), "VALIDATION_ERROR"),
        (("student:{0.student_id}", "sj_credits", 0, "nothing"), "VALIDATION_ERROR"),
        (("student:{0.student_id}", "sj_credits", None, "nothing"), "VALIDATION_ERROR"),
        (("student:{0.student_id}", "sj_credits", 1, " "), "VALIDATION_ERROR"),
        (("student:nobody", "sj_credits", 1, "who"), "CONTACT_NOT_FOUND"),
        (("not a contact", "sj_credits", 1, "who"), "CONTACT_NOT_FOUND"),
        ((None, "sj_credits", 1, "who"), "CONTACT_NOT_FOUND"),
    ],
)
async def test_a_wrong_grant_is_refused(db, service, wrong, code):
    """Nothing is written when the contact, the type, the number or the reason is wrong."""
    known = await make_contact(db, credits={"sj_credits": 1})
    contact, credit_type, n, reason = wrong
    arguments = {
        "p_contact": contact and contact.format(known),
        "p_type": credit_type,
        "p_n": n,
        "p_reason": reason,
    }
    assert (await _refused(service, "grant_credits", **arguments))[0] == code
    assert (await balances(db, known))["sj_credits"] == 1


async def test_a_shared_student_id_is_ambiguous(db, service):
    """Two people may share a student ID; a grant by it has to say whom."""
    for _ in range(2):
        await make_contact(db, credits={"sj_credits": 1}, student_id="TWINS")
    code, details = await _refused(
        service, "grant_credits", p_contact="student:twins", p_type="sj_credits", p_n=1, p_reason="which"
    )
    assert (code, len(details["contact_ids"])) == ("AMBIGUOUS_CONTACT", 2)


async def test_monitoring_queries_run_unchanged(db, service, superuser):
    """The queries people run against the old tables give the same meaning on the views."""
    rich = await make_contact(db, credits={"sj_credits": 4, "shared_mock_credits": 2})
    await make_contact(db, credits={"cs_credits": 3})
    stale = await make_contact(db, credits={})
    await make_local_contact(db, student_id="LOCAL1")
    await superuser.execute(
        "update tallybook.contacts set synced_at = now() - interval '8 days' where id = %s", (stale.id,)
    )
    exam = await make_mock_exam(db, hubspot_id="9001")
    await cancel(db, rich, await book(db, rich, exam))
    total = "sj_credits + cs_credits + sjmini_credits + mock_discussion_token + shared_mock_credits"
    for query, expected in {
        "SELECT COUNT(*) FROM hubspot_contact_credits": 4,
        "SELECT COUNT(*) FILTER (WHERE sj_credits > 0) FROM hubspot_contact_credits": 1,
        f"SELECT AVG({total}) FROM hubspot_contact_credits": 3,
        "SELECT COUNT(*) FROM hubspot_contact_credits WHERE synced_at > NOW() - INTERVAL '24 hours'": 2,
        "SELECT COUNT(*) FROM hubspot_contact_credits"
        " WHERE synced_at < NOW() - INTERVAL '7 days' OR synced_at IS NULL": 2,
        "SELECT COUNT(*) FROM hubspot_bookings WHERE is_active = 'Cancelled' AND token_refunded = 'true'": 1,
        "SELECT COUNT(*) FROM hubspot_bookings WHERE hubspot_id IS NULL": 1,
        "SELECT COUNT(*) FROM hubspot_mock_exams WHERE is_active = 'true' AND total_bookings < capacity": 1,
        "SELECT COUNT(*) FROM hubspot_mock_exams WHERE hubspot_id = '9001' AND exam_date > CURRENT_DATE": 1,
    }.items():
        assert (query, await (await service.execute(query)).fetchone()) == (query, (expected,))


async def test_the_views_have_the_columns_of_the_old_tables(service):
    """Columns old clients select exist under their old names."""
    for view, columns in OLD_COLUMNS.items():
        await service.execute(f"select {', '.join(columns.split())} from {view}")
