"""What the demo says once it runs: addresses, logins, and lines to paste."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from tallybook.cli.demo_filling import Filled


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the demo's parts listen."""

    url: str
    simulator_url: str
    database_url: str


def introduction(addresses: Addresses, filled: Filled, staff_password: str) -> str:
    """The text a newcomer reads; its `curl` lines work in this order, as they stand."""
    pair = f'"student_id": "{filled.student_id}", "email": "{filled.student_email}"'
    json = "-H 'Content-Type: application/json'"
    booking = quote(filled.next_booking_id, safe="")
    book = f'{{{pair}, "mock_exam_id": "{filled.mock_exam_id}"}}'
    return f"""
Tallybook is running.  Ctrl-C stops everything.

  API         {addresses.url}   (every address: {addresses.url}/docs)
  HubSpot     {addresses.simulator_url}   (simulated)
  PostgreSQL  {addresses.database_url}
  Student     {filled.student_id}   {filled.student_email}
  Staff       {filled.staff_email}   {staff_password}

Paste these lines into another shell:

API={addresses.url}
KEY={filled.api_key}

# Sign in as the student, as a front end does
curl -sS -X POST $API/api/user/login {json} -d '{{{pair}}}'

# Check the student's credits
curl -sS -X POST $API/api/mock-exams/validate-credits -H "Authorization: Bearer $KEY" {json} \\
  -d '{{{pair}, "mock_type": "{filled.mock_type}"}}'

# Book a seat; run it twice: the retry gets the same answer, not a second booking
curl -sS -X POST $API/api/bookings/create -H "Authorization: Bearer $KEY" {json} \\
  -H 'Idempotency-Key: {filled.idempotency_key}' -d '{book}'

# Cancel it: the credit comes back
curl -sS -X DELETE "$API/api/bookings/{booking}" -H "Authorization: Bearer $KEY" {json} -d '{{{pair}}}'

# Book it again
curl -sS -X POST $API/api/bookings/create -H "Authorization: Bearer $KEY" {json} -d '{book}'
"""
