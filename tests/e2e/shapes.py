"""The fields of answers as the contract names them."""

import re


def fields(text):
    """The names in a text."""
    return set(text.split())


UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TYPES = fields("credits sj_credits cs_credits sjmini_credits mock_discussion_token shared_mock_credits")
STUDENT = fields("id hubspot_id contact_id student_id email name firstname lastname ndecc_exam_date credits")
BOOKED = fields(
    "booking_id booking_record_id id mock_exam_id mock_type exam_date start_time end_time "
    "time_zone starts_at ends_at location token_used credits_after"
)
CANCELLED = fields(
    "booking_id booking_record_id id hubspot_id student_id cancelled_at credits_restored "
    "credit_type credits_after"
)
CHECK = fields(
    "eligible available_credits credit_breakdown contact_id id student_name ndecc_exam_date source as_of"
)
