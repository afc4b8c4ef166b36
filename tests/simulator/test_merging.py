"""Two records become a new one, and a contact can be deleted for good; what is left under the old ids."""

import json
import time

import pytest

from hubspot_simulator import state
from hubspot_simulator.portal import Portal
from hubspot_simulator.settings import Settings

CONTACTS = "/crm/v3/objects/contacts"
BOOKINGS = "2-50158943"


def _merge(portal, primary, other):
    answer = portal.post(f"{CONTACTS}/merge", {"primaryObjectId": primary, "objectIdToMerge": other})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _read(portal, one, *names):
    answer = portal.http.get(f"{CONTACTS}/{one}", params={"properties": ",".join(names)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_merge_makes_a_new_record_that_both_old_ids_lead_to(portal):
    """Read by either id, singly or in a batch, updated by either id: it is always the new record."""
    first, second = portal.ids(limit=2)
    made = _merge(portal, first, second)
    assert made["id"] not in {first, second}
    assert made["properties"]["hs_merged_object_ids"] == f"{first};{second}"
    assert {_read(portal, one)["id"] for one in (first, second, made["id"])} == {made["id"]}
    rows = {"inputs": [{"id": one} for one in (first, second, made["id"])]}
    read = portal.post(f"{CONTACTS}/batch/read", rows)
    assert (read.status_code, [one["id"] for one in read.json()["results"]]) == (200, [made["id"]])
    write = {"inputs": [{"id": second, "properties": {"firstname": "Merged"}}]}
    written = portal.post(f"{CONTACTS}/batch/update", write).json()["results"]
    assert [one["id"] for one in written] == [made["id"]]
    assert _read(portal, first, "firstname")["properties"]["firstname"] == "Merged"
    assert {first, second}.isdisjoint(portal.ids(limit=100))
    every = portal.http.get(CONTACTS, params={"limit": 100, "after": made["id"]}).json()["results"]
    assert [one["id"] for one in every] == [made["id"]], "the list has the new record at its end"


def test_the_primarys_values_win_and_both_histories_stay(portal):
    """Its number stays although the other's is newer; the newest entry of the history is the value."""
    first, second = portal.ids(limit=2)
    for one, value in ((first, "4"), (second, "9")):
        portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {"sj_credits": value}})
        portal.door("POST", "settings", advance_s=1)
    made = _merge(portal, first, second)
    shown = portal.http.get(
        f"{CONTACTS}/{made['id']}", params={"propertiesWithHistory": "sj_credits,firstname"}
    ).json()
    assert shown["properties"]["sj_credits"] == "4"
    entries = shown["propertiesWithHistory"]["sj_credits"]
    assert [one["value"] for one in entries[:3]] == ["4", "9", "4"]
    assert [one["sourceType"] for one in entries[:3]] == ["MERGE_OBJECTS", "INTEGRATION", "INTEGRATION"]
    assert entries[0]["timestamp"] == shown["updatedAt"]
    assert "5" in {one["value"] for one in entries}, "what it was before is kept"
    for name, listed in shown["propertiesWithHistory"].items():
        assert (listed[0]["value"] or None) == shown["properties"][name]
        assert [one["timestamp"] for one in listed] == sorted(
            (one["timestamp"] for one in listed), reverse=True
        )


@pytest.mark.parametrize(("fills", "never"), [(True, "2027-01-01"), (False, None)])
def test_values_the_primary_never_had_may_come_from_the_other(portal, fills, never):
    """Cleared ones stay cleared; both readings of what fills an empty value can be played."""
    portal.door("POST", "settings", merge_fills=fills)
    first, second = portal.ids(limit=2)
    portal.http.patch(f"{CONTACTS}/{first}", json={"properties": {"cs_credits": ""}})
    portal.http.patch(
        f"{CONTACTS}/{second}", json={"properties": {"cs_credits": "7", "ndecc_exam_date": "2027-01-01"}}
    )
    merged = _read(portal, _merge(portal, first, second)["id"], "cs_credits", "ndecc_exam_date")
    assert merged["properties"]["cs_credits"] is None
    assert merged["properties"]["ndecc_exam_date"] == never


def test_the_losers_addresses_become_additional_ones(portal):
    """All of them find the new contact, and none of them can be taken by another."""
    first, second = portal.ids(limit=2)
    portal.http.patch(f"{CONTACTS}/{second}", json={"properties": {"hs_additional_emails": "old@x.io"}})
    made = _merge(portal, first, second)["id"]
    shown = _read(portal, made, "email", "hs_additional_emails")["properties"]
    assert shown["email"] == "student0@example.com"
    assert shown["hs_additional_emails"] == "student1@example.com;old@x.io"
    for email in ("student1@example.com", "OLD@x.io"):
        found = portal.http.get(f"{CONTACTS}/{email}", params={"idProperty": "email"})
        assert found.json()["id"] == made
        refused = portal.post(CONTACTS, {"properties": {"email": email}})
        assert refused.json()["message"] == f"Contact already exists. Existing ID: {made}"


def test_associations_move_with_their_labels(portal):
    """What was associated with either contact is associated with the new one, from both sides."""
    first, second = portal.ids(limit=2)
    bookings = []
    for one in (first, second):
        kind = {"associationCategory": "USER_DEFINED", "associationTypeId": 1301}
        body = {
            "properties": {"booking_id": one},
            "associations": [{"to": {"id": one}, "types": [kind]}],
        }
        bookings.append(portal.post(f"/crm/v3/objects/{BOOKINGS}", body).json()["id"])
    made = _merge(portal, first, second)["id"]
    url = f"/crm/v4/objects/contacts/{second}/associations/{BOOKINGS}"
    assert [str(one["toObjectId"]) for one in portal.http.get(url).json()["results"]] == bookings
    for one in bookings:
        url = f"/crm/v4/objects/{BOOKINGS}/{one}/associations/contacts"
        [only] = portal.http.get(url).json()["results"]
        assert str(only["toObjectId"]) == made
        assert [kind["typeId"] for kind in only["associationTypes"]] == [1301]


def test_what_was_between_the_two_is_gone(portal):
    """A record is not associated with itself because the two it was made of were with each other."""
    first, second, third = portal.ids("mock_exams", limit=3)
    for other in (second, third):
        url = f"/crm/v4/objects/mock_exams/{first}/associations/default/mock_exams/{other}"
        assert portal.http.put(url).status_code == 200
    body = {"primaryObjectId": first, "objectIdToMerge": second}
    made = portal.post("/crm/v3/objects/mock_exams/merge", body).json()["id"]
    for one, other in ((made, third), (third, made)):
        url = f"/crm/v4/objects/mock_exams/{one}/associations/mock_exams"
        assert [str(each["toObjectId"]) for each in portal.http.get(url).json()["results"]] == [other]


def test_of_two_entries_with_one_time_the_primarys_stays(portal):
    """And the merged record is as old as the older of the two."""
    portal.door("POST", "reset")
    portal.door("POST", "populate", contacts=2, same_time=True)
    first, second = portal.ids()
    made = _merge(portal, second, first)
    history = portal.door("GET", f"records/contacts/{first}").json()["history"]
    assert [one["value"] for one in history["student_id"]] == ["1599001"]
    assert made["createdAt"] == "2026-01-01T05:00:00.000Z" < made["updatedAt"]


def test_a_merged_record_can_be_merged_again(portal):
    """Every id that ever was leads to the last record; an old id may be given for the new one."""
    first, second, third = portal.ids(limit=3)
    between = _merge(portal, first, second)["id"]
    last = _merge(portal, third, second)
    assert last["properties"]["hs_merged_object_ids"] == f"{third};{first};{second};{between}"
    assert {_read(portal, one)["id"] for one in (first, second, third, between)} == {last["id"]}
    again = portal.post(f"{CONTACTS}/merge", {"primaryObjectId": first, "objectIdToMerge": third})
    assert (again.status_code, again.json()["category"]) == (400, "VALIDATION_ERROR")


def test_no_more_than_250_records_go_into_one(portal):
    """The 250th is taken, the 251st refused with 414 and nothing changed."""
    ids = [*portal.ids(limit=100), portal.post(CONTACTS, {"properties": {"email": "a@x.io"}}).json()["id"]]
    ids += [one["id"] for one in _page(portal, ids[99])][1:]
    assert len(dict.fromkeys(ids)) >= 251
    whole, *others = list(dict.fromkeys(ids))[:251]
    for one in others[:249]:
        whole = _merge(portal, whole, one)["id"]
    refused = portal.post(f"{CONTACTS}/merge", {"primaryObjectId": whole, "objectIdToMerge": others[249]})
    assert (refused.status_code, refused.json()["message"]) == (
        414,
        "Cannot have more than 250 identities on a profile",
    )
    assert _read(portal, others[249])["id"] == others[249]


def _page(portal, after):
    found = []
    while page := portal.http.get(CONTACTS, params={"limit": 100, "after": after}).json()["results"]:
        found += page
        after = int(page[-1]["id"]) + 1
    return found


def test_custom_objects_merge_too(portal):
    """The same handler answers for every type."""
    ids = portal.ids("mock_exams", limit=2)
    body = {"primaryObjectId": ids[0], "objectIdToMerge": ids[1]}
    made = portal.post("/crm/objects/2026-09/mock_exams/merge", body).json()["id"]
    assert portal.http.get(f"/crm/v3/objects/mock_exams/{ids[1]}").json()["id"] == made


def test_a_person_can_merge_and_erase_at_the_back_door(portal):
    """The merge is signed by the person, in the history too."""
    first, second = portal.ids(limit=2)
    edit = {"object_type": "contacts", "id": first, "merge": second, "user": "77"}
    made = portal.post("/_simulator/edits", edit).json()
    assert made["id"] == portal.door("GET", f"records/contacts/{second}").json()["id"]
    assert made["history"]["hs_additional_emails"][0]["user"] == "77"
    portal.door("POST", "edits", object_type="contacts", id=second, erase=True)
    assert portal.http.get(f"/_simulator/records/contacts/{first}").status_code == 404


@pytest.mark.parametrize("by", ["id", "email", "archived", "merged"])
def test_a_privacy_deletion_leaves_nothing(portal, by):
    """By id or e-mail, live, archived or merged: not read, not listed, not associated, not restored."""
    first, second = portal.ids(limit=2)
    booking = portal.post(f"/crm/v3/objects/{BOOKINGS}", {"properties": {"booking_id": "b"}}).json()["id"]
    portal.http.put(f"/crm/v4/objects/{BOOKINGS}/{booking}/associations/default/contacts/{first}")
    body = {"objectId": first}
    if by == "email":
        body = {"objectId": "Student0@example.com", "idProperty": "email"}
    elif by == "archived":
        portal.http.delete(f"{CONTACTS}/{first}")
    elif by == "merged":
        _merge(portal, first, second)
    assert portal.post(f"{CONTACTS}/gdpr-delete", body).status_code == 204
    assert portal.http.get(f"{CONTACTS}/{first}").status_code == 404
    assert portal.http.get(f"{CONTACTS}/{first}", params={"archived": "true"}).status_code == 404
    assert first not in portal.ids(limit=100)
    url = f"/crm/v4/objects/{BOOKINGS}/{booking}/associations/contacts"
    assert portal.http.get(url).json()["results"] == []
    assert portal.post(f"{CONTACTS}/search", {"query": "student0@"}).json()["total"] == 0
    assert portal.post(f"{CONTACTS}/gdpr-delete", {"objectId": first}).status_code == 404


def test_an_unknown_address_is_blocked_for_good(portal):
    """A privacy deletion of an address nobody has keeps it from being used; other types have none."""
    body = {"objectId": "Never@x.io", "idProperty": "email"}
    assert portal.post(f"{CONTACTS}/gdpr-delete", body).status_code == 204
    refused = portal.post(CONTACTS, {"properties": {"email": "never@x.io"}})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["code"] == "BLOCKED_EMAIL"
    assert portal.post("/crm/v3/objects/mock_exams/gdpr-delete", body).status_code == 404


def test_merges_and_blocked_addresses_survive_in_the_state_file(tmp_path, portal):
    """Old ids still lead to the new record after a restart."""
    first, second = portal.ids(limit=2)
    made = _merge(portal, first, second)["id"]
    portal.post(f"{CONTACTS}/gdpr-delete", {"objectId": "never@x.io", "idProperty": "email"})
    path = tmp_path / "portal.state"
    state.save(portal.app.portal, path)
    again = Portal(Settings())
    state.load(again, path)
    store = again.store("contacts")
    assert str(store.get(int(first)).id) == made
    assert store.value(store.get(int(first)), "hs_merged_object_ids") == f"{first};{second}"
    assert again.blocked_emails == {"never@x.io"}


def test_webhooks_tell_of_merges_associations_and_deletions(portal, receiver):
    """Each with the documented fields; an association is told from both sides, and once."""
    handler, url = receiver
    first, second = portal.ids(limit=2)
    booking = portal.post(f"/crm/v3/objects/{BOOKINGS}", {"properties": {"booking_id": "b"}}).json()["id"]
    portal.door("POST", "webhooks", url=url, secret="s")
    portal.http.put(f"/crm/v4/objects/{BOOKINGS}/{booking}/associations/default/contacts/{first}")
    portal.http.put(f"/crm/v4/objects/{BOOKINGS}/{booking}/associations/default/contacts/{first}")
    made = _merge(portal, first, second)["id"]
    portal.http.delete(f"/crm/v4/objects/{BOOKINGS}/{booking}/associations/contacts/{made}")
    portal.door("POST", "edits", object_type="contacts", id=made, archived=True)
    portal.door("POST", "edits", object_type="contacts", id=made, archived=False)
    portal.post(f"{CONTACTS}/gdpr-delete", {"objectId": made})
    events = _events(portal, handler, 9)
    told = [one["subscriptionType"] for one in events]
    assert sorted(told) == sorted(
        [
            *("object.associationChange", "contact.associationChange") * 2,
            "contact.merge",
            *("contact.deletion", "contact.restore", "contact.privacyDeletion", "contact.deletion"),
        ]
    )
    [merged] = [one for one in events if one["subscriptionType"] == "contact.merge"]
    assert merged["primaryObjectId"] == int(first)
    assert merged["mergedObjectIds"] == [int(second)]
    assert merged["newObjectId"] == merged["objectId"] == int(made)
    assert merged["numberOfPropertiesMoved"] > 3
    changes = [one for one in events if one["subscriptionType"] == "contact.associationChange"]
    assert {(one["fromObjectId"], one["toObjectId"], one["associationRemoved"]) for one in changes} == {
        (int(first), int(booking), False),
        (int(made), int(booking), True),
    }
    assert {one["associationType"] for one in changes} == {"CONTACT_TO_BOOKING"}


def _events(portal, handler, count):
    deadline = time.monotonic() + 5
    while True:
        events = [event for _, body in list(handler.got) for event in json.loads(body)]
        if len(events) >= count:
            return events
        assert time.monotonic() < deadline, [one["subscriptionType"] for one in events]
        time.sleep(0.01)
