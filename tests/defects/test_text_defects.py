"""Texts the old systems bent, each under the rule it broke."""

import json

from support.factories import make_contact, remote_contact, student
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.show_student import show_student


async def test_a_name_is_stored_as_it_is_written(db):
    """A12: O'Brien stays O'Brien; what is shown is made safe where it is shown."""
    contact = await make_contact(db, credits={})
    name = 'O\'Brien <b>&amp; "Söhne"; --'
    edited = remote_contact(
        hubspot_id=contact.hubspot_id,
        student_id=contact.student_id,
        email=contact.email,
        lastname=name,
    )
    await absorb_contacts(db, [edited], first_reason="import")
    answer = await show_student(db, None, caller=student(contact), pair=None)
    assert json.loads(answer.data)["lastname"] == name
