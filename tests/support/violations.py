"""One statement for each check and unique key of the schema that breaks it and nothing else.

It meets a row of each kind (see `test_constraints.py`) and runs with triggers and foreign keys off.
"""

_ENTRY = "insert into credit_entries (contact_id, credit_type, actor, seq, delta, balance_after, reason{})"
_COPY_BOOKING = (
    "insert into bookings (booking_id, contact_id, mock_exam_id, original_mock_exam_id,"
    " ordinal, mock_type, exam_on,"
    " starts_at, ends_at, token_used, idempotency_key, booked_by, status, cancelled_at, hubspot_id)"
    " select {} from bookings limit 1"
)
_BOOKING = {
    "booking_id": "'other text'",
    "contact_id": "gen_random_uuid()",
    "mock_exam_id": "mock_exam_id",
    "original_mock_exam_id": "original_mock_exam_id",
    "ordinal": "7",
    "mock_type": "mock_type",
    "exam_on": "exam_on",
    "starts_at": "starts_at",
    "ends_at": "ends_at",
    "token_used": "token_used",
    "idempotency_key": "'other key'",
    "booked_by": "'x'",
    "status": "'Active'",
    "cancelled_at": "null",
    "hubspot_id": "null",
}


def _booking(**same):
    """A second booking, alike in the columns named."""
    return _COPY_BOOKING.format(", ".join((_BOOKING | same).values()))


def _entry(columns, values):
    return (
        f"{_ENTRY.format(columns)} select contact_id, credit_type, 'x', {values} from credit_entries"
        " where external_event is not null limit 1"
    )


def _payment(values, column="", value=""):
    return (
        f"insert into payments (contact_id, pack, credit_type, credits, id, intent, entry_id{column})"
        f" select gen_random_uuid(), 'starter', 'credits', 500, {values}{value} from generate_series(1, 2) n"
    )


VIOLATIONS = {
    "api_keys_scopes_are_known": "update api_keys set scopes = '{everything}'",
    "bookings_attendance_is_known": "update bookings set attendance = 'Maybe'",
    "bookings_booking_id_key": _booking(booking_id="booking_id"),
    "bookings_cancelled_has_a_time": "update bookings set status = 'Cancelled'",
    "bookings_ends_after_start": "update bookings set ends_at = starts_at",
    "bookings_hubspot_id_key": _booking(hubspot_id="hubspot_id"),
    "bookings_idempotency_key_key": _booking(idempotency_key="idempotency_key"),
    "bookings_one_live_per_day_and_type": _booking(contact_id="contact_id", mock_exam_id="gen_random_uuid()"),
    "bookings_one_live_per_exam": _booking(contact_id="contact_id", exam_on="exam_on + 1"),
    "bookings_ordinal_key": _booking(
        contact_id="contact_id", ordinal="ordinal", status="'Cancelled'", cancelled_at="now()"
    ),
    "bookings_status_is_known": "update bookings set status = 'active'",
    "catalog_state_has_one_row": "insert into catalog_state (only_row, hash) values (false, 'x')",
    "contact_aliases_kind_is_known": "update contact_aliases set kind = 'phone'",
    "application_rights_privilege_is_known": "update application_rights set privilege = 'truncate'",
    "contacts_email_is_normal": "update contacts set email = 'Ada@example.com'",
    "contacts_email_key": "insert into contacts (email) select email from contacts",
    "contacts_hubspot_id_is_digits": "update contacts set hubspot_id = '12a'",
    "contacts_hubspot_id_key": "insert into contacts (hubspot_id) select hubspot_id from contacts",
    "contacts_is_not_merged_into_itself": "update contacts set merged_into = id",
    "contacts_student_id_is_normal": "update contacts set student_id = 'a1'",
    "credit_balances_balance_is_not_negative": "update credit_balances set balance = -1",
    "credit_balances_held_within_balance": "update credit_balances set held = balance + 1",
    "credit_entries_balance_after_is_not_negative": _entry("", "99, 1, -1, 'grant'"),
    "credit_entries_delta_is_not_zero": _entry("", "99, 0, 1, 'grant'"),
    "credit_entries_external_event_key": _entry(", external_event", "99, 1, 1, 'grant', external_event"),
    "credit_entries_reason_is_a_word": _entry("", "99, 1, 1, 'Because Ada asked'"),
    "credit_entries_reverses_entry_id_key": _entry(
        ", reverses_entry_id", "99, 1, 1, 'refund', reverses_entry_id"
    ),
    "credit_entries_seq_key": _entry("", "seq, 1, 1, 'grant'"),
    "credit_holds_captured_within_held": "update credit_holds set captured_credits = credits + 1",
    "credit_holds_closed_as_is_known": "update credit_holds set closed_as = 'lost', closed_at = now()",
    "credit_holds_closed_says_how": "update credit_holds set closed_at = now()",
    "credit_holds_credits_are_positive": "update credit_holds set credits = 0",
    "credit_types_hubspot_property_key": "update credit_types set hubspot_property = 'same'",
    "credit_types_token_is_not_override": "update credit_types set token_name = 'Admin Override'",
    "credit_types_token_name_key": "update credit_types set token_name = 'Same Token'",
    "credit_types_welcome_is_not_negative": "update credit_types set welcome_credits = -1",
    "crm_call_state_has_one_row": "update crm_call_state set only_row = false",
    "inbox_event_key": "insert into inbox (object_type, hubspot_id, subscription_type)"
    " select 'contact', '1', 'reread' from generate_series(1, 2)",
    "inbox_object_type_is_known": "insert into inbox (object_type, hubspot_id, subscription_type)"
    " values ('deal', '1', 'reread')",
    "metered_actions_cost_is_positive": "update metered_actions set cost_credits = 0",
    "mock_exam_prerequisites_is_another_exam": (
        "update mock_exam_prerequisites set prerequisite_id = mock_exam_id"
    ),
    "mock_exams_activation_is_known": "update mock_exams set activation = 'true'",
    "mock_exams_end_is_near_its_local_time": "update mock_exams set ends_at = ends_at + interval '2 days'",
    "mock_exams_ends_after_start": "update mock_exams set ends_at = starts_at, end_time = start_time",
    "mock_exams_hubspot_id_key": (
        "insert into mock_exams (hubspot_id, mock_type, exam_on, start_time, end_time, time_zone, starts_at,"
        " ends_at, location, capacity) select hubspot_id, mock_type, exam_on, start_time,"
        " end_time, time_zone,"
        " starts_at, ends_at, location, capacity from mock_exams where hubspot_id is not null"
    ),
    "mock_exams_scheduled_has_a_time": "update mock_exams set activation = 'scheduled'",
    "mock_exams_seats_within_capacity": "update mock_exams set total_bookings = capacity + 1",
    "mock_exams_start_is_near_its_local_time": (
        "update mock_exams set starts_at = starts_at - interval '2 days'"
    ),
    "mock_types_can_be_paid": "update mock_types set pays_with = '{}'",
    "mock_types_minutes_are_not_negative": "update mock_types set booking_closes_min = -1",
    "mock_types_prerequisite_rule_is_known": "update mock_types set prerequisite_rule = 'some'",
    "mock_types_refund_rule_is_known": "update mock_types set refund_rule = 'sometimes'",
    "outbox_object_type_is_known": "update outbox set object_type = 'deal'",
    "packs_credits_are_positive": "update packs set credits = 0",
    "payment_events_outcome_is_known": (
        "insert into payment_events (id, kind, outcome) values ('e', 'x', 'y')"
    ),
    "payment_events_refused_says_why": (
        "insert into payment_events (id, kind, outcome) values ('e', 'x', 'refused')"
    ),
    "payments_entry_id_key": _payment("'p' || n, 'i' || n, 1"),
    "payments_intent_key": _payment("'p' || n, 'i', n"),
    "payments_take_back_no_more_than_given": _payment("'p' || n, 'i' || n, n", ", refunded_credits", ", 501"),
    "record_aliases_object_type_is_known": "insert into record_aliases select 'deal', '1', id from contacts",
    "schema_migrations_version_is_a_timestamp": "update schema_migrations set version = '1' || name",
    "staff_email_is_normal": "update staff set email = ' a@example.com'",
    "staff_email_key": "insert into staff (email, role) select email, role from staff",
    "staff_role_is_known": "update staff set role = 'owner'",
    "sync_lanes_lane_is_known": "insert into sync_lanes (lane) values ('deal')",
    "sync_lanes_paused_says_why": "update sync_lanes set paused_at = now()",
    "sync_conflicts_one_open": "insert into sync_conflicts (object_type, object_id, field, kind)"
    " select object_type, object_id, field, kind from sync_conflicts",
}
