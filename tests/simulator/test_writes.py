"""What a write may hold and leaves behind: types, unique values, e-mail rules, whole batches, history."""

from datetime import datetime, timedelta

import pytest

CONTACTS = "/crm/v3/objects/contacts"
EXAMS = "/crm/v3/objects/2-50158913"
UNIQUE = {
    "name": "tallybook_id",
    "label": "Tallybook id",
    "type": "string",
    "fieldType": "text",
    "groupName": "contactinformation",
    "hasUniqueValue": True,
}


@pytest.fixture
def unique(portal):
    """The portal with a unique property on contacts and two contacts that hold it."""
    assert portal.post("/crm/v3/properties/contacts", UNIQUE).status_code == 201
    ids = portal.ids(limit=2)
    rows = [{"id": one, "properties": {"tallybook_id": f"u{i}"}} for i, one in enumerate(ids)]
    assert portal.post(f"{CONTACTS}/batch/update", {"inputs": rows}).status_code == 200
    return portal


def test_values_are_checked_against_their_type(portal):
    """Every bad value is named with HubSpot's code, and nothing is written."""
    [one] = portal.ids(limit=1)
    bad = {
        "sj_credits": "12abc",
        "cs_credits": " 5",
        "ndecc_exam_date": "2027-02-30",
        "nope": "1",
        "hs_object_id": "5",
        "email": "x",
    }
    answer = portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {**bad, "firstname": "Zed"}})
    assert answer.status_code == 400
    codes = {fault["context"]["propertyName"][0]: fault["code"] for fault in answer.json()["errors"]}
    assert codes == {
        "sj_credits": "INVALID_DOUBLE",
        "cs_credits": "LEADING_TRAILING_WHITESPACE",
        "ndecc_exam_date": "INVALID_DATE",
        "nope": "PROPERTY_DOESNT_EXIST",
        "hs_object_id": "READ_ONLY_VALUE",
        "email": "INVALID_EMAIL",
    }
    assert portal.http.get(f"{CONTACTS}/{one}").json()["properties"]["firstname"] != "Zed"


@pytest.mark.parametrize(
    ("name", "sent", "stored"),
    [
        ("sj_credits", 7, "7"),
        ("sj_credits", "3.0", "3.0"),
        ("sj_credits", "", None),
        ("sj_credits", None, None),
        ("ndecc_exam_date", "1798761600000", "2027-01-01"),
        ("email", "  New@Example.COM ", "new@example.com"),
    ],
)
def test_values_are_stored_as_text(portal, name, sent, stored):
    """Numbers become text, dates one form, e-mails lower case; empty text and null clear."""
    [one] = portal.ids(limit=1)
    answer = portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {name: sent}})
    assert answer.status_code == 200, answer.text
    assert (
        portal.http.get(f"{CONTACTS}/{one}", params={"properties": name}).json()["properties"][name] == stored
    )


def test_a_known_email_refuses_the_whole_batch_with_409(portal):
    """Only the first duplicate is named, and none of the others is created."""
    rows = [{"properties": {"email": f"{name}@example.com"}} for name in ("new1", "student3", "student4")]
    answer = portal.post(f"{CONTACTS}/batch/create", {"inputs": rows})
    body = answer.json()
    assert (answer.status_code, body["category"]) == (409, "CONFLICT")
    assert body["message"] == f"Contact already exists. Existing ID: {portal.ids()[3]}"
    read = portal.post(
        f"{CONTACTS}/batch/read", {"inputs": [{"id": "new1@example.com"}], "idProperty": "email"}
    )
    assert (read.status_code, read.json()["results"]) == (207, [])


def test_trace_ids_turn_the_refusal_into_a_207(portal):
    """With a trace id for each input the good ones are created and the bad ones named by theirs."""
    rows = [
        {"properties": {"email": f"{name}@example.com"}, "objectWriteTraceId": name}
        for name in ("new1", "student3", "new2")
    ]
    answer = portal.post(f"{CONTACTS}/batch/create", {"inputs": rows})
    body = answer.json()
    assert (answer.status_code, len(body["results"]), body["numErrors"]) == (207, 2, 1)
    assert body["errors"][0]["context"]["objectWriteTraceId"] == ["student3"]
    assert body["errors"][0]["category"] == "CONFLICT"


def test_an_additional_email_is_taken_too(portal):
    """An address belongs to one contact, whichever field holds it."""
    [one] = portal.ids(limit=1)
    portal.http.patch(
        f"{CONTACTS}/{one}", json={"properties": {"hs_additional_emails": "old@x.io;older@x.io"}}
    )
    assert portal.post(CONTACTS, {"properties": {"email": "OLDER@x.io"}}).status_code == 409
    found = portal.http.get(f"{CONTACTS}/old@x.io", params={"idProperty": "email"})
    assert found.json()["id"] == one


def test_a_type_has_at_most_ten_unique_properties(unique):
    """HubSpot's own e-mail does not count; the eleventh is refused, one that is not unique is not."""
    url = "/crm/v3/properties/contacts"
    made = [unique.post(url, {**UNIQUE, "name": f"key_{i}"}).status_code for i in range(10)]
    assert made == [201] * 9 + [400], "one was there already"
    plain = {**UNIQUE, "name": "plain", "hasUniqueValue": False}
    assert unique.post(url, plain).status_code == 201


def test_a_taken_unique_value_refuses_an_update_with_400(unique):
    """The sentence names both records."""
    first, second = unique.ids(limit=2)
    answer = unique.http.patch(f"{CONTACTS}/{second}", json={"properties": {"tallybook_id": "u0"}})
    assert answer.status_code == 400
    assert answer.json()["message"].endswith(
        f"propertyName=tallybook_id, value=u0}} on {second}. {first} already has that value."
    )


def test_upsert_by_a_unique_property_creates_and_updates(unique):
    """Partial properties are enough, and `new` tells which happened."""
    rows = [
        {"id": "u0", "idProperty": "tallybook_id", "properties": {"sj_credits": "9"}},
        {"id": "u7", "idProperty": "tallybook_id", "properties": {"email": "u7@x.io"}},
    ]
    body = unique.post(f"{CONTACTS}/batch/upsert", {"inputs": rows}).json()
    assert [one["new"] for one in body["results"]] == [False, True]
    assert body["results"][1]["properties"]["email"] == "u7@x.io"


def test_upsert_needs_one_unique_property_and_distinct_ids(unique):
    """No idProperty, one that is not unique, or an id twice: 400 for the batch."""
    for rows in (
        [{"id": "u0", "properties": {}}],
        [{"id": "Ana", "idProperty": "firstname", "properties": {}}],
        [{"id": "u0", "idProperty": "tallybook_id", "properties": {}}] * 2,
    ):
        assert unique.post(f"{CONTACTS}/batch/upsert", {"inputs": rows}).status_code == 400


def test_one_conflict_refuses_a_whole_upsert_with_409(unique):
    """An e-mail of another contact fails the batch, and the other records stay as they were."""
    rows = [
        {"id": "u0", "idProperty": "tallybook_id", "properties": {"firstname": "Zed"}},
        {"id": "u1", "idProperty": "tallybook_id", "properties": {"email": "student5@example.com"}},
    ]
    assert unique.post(f"{CONTACTS}/batch/upsert", {"inputs": rows}).status_code == 409
    assert unique.http.get(f"{CONTACTS}/{unique.ids()[0]}").json()["properties"]["firstname"] != "Zed"


def test_upsert_by_email_is_never_partial(portal):
    """By e-mail one bad record fails all, trace ids or not; by another property they make a 207."""
    rows = [
        {
            "id": f"{name}@x.io",
            "idProperty": "email",
            "objectWriteTraceId": name,
            "properties": {"sj_credits": credit},
        }
        for name, credit in (("a", "1"), ("b", "many"))
    ]
    assert portal.post(f"{CONTACTS}/batch/upsert", {"inputs": rows}).status_code == 400
    portal.post("/crm/v3/properties/contacts", UNIQUE)
    rows = [{**one, "id": one["id"], "idProperty": "tallybook_id"} for one in rows]
    body = portal.post(f"{CONTACTS}/batch/upsert", {"inputs": rows})
    assert (body.status_code, len(body.json()["results"]), body.json()["numErrors"]) == (207, 1, 1)


def test_batch_update_ignores_emails_and_reports_unknown_ids(portal):
    """An e-mail as id does nothing and says nothing; an unknown record id is an error of a 207."""
    first = portal.ids(limit=1)[0]
    rows = [
        {"id": first, "properties": {"sj_credits": "8"}},
        {"id": "student1@example.com", "idProperty": "email", "properties": {"sj_credits": "8"}},
        {"id": "17", "properties": {"sj_credits": "8"}},
    ]
    answer = portal.post(f"{CONTACTS}/batch/update", {"inputs": rows})
    assert answer.status_code == 207
    assert [one["id"] for one in answer.json()["results"]] == [first]
    assert answer.json()["errors"][0]["context"] == {"ids": ["17"]}


def test_batches_take_100_inputs_and_50_with_history(portal):
    """One more is a 400."""
    ids = [{"id": one} for one in portal.ids(limit=100)]
    read = f"{CONTACTS}/batch/read"
    assert len(portal.post(read, {"inputs": ids}).json()["results"]) == 100
    assert portal.post(read, {"inputs": [*ids, {"id": "1"}]}).status_code == 400
    history = {"propertiesWithHistory": ["email"]}
    assert portal.post(read, {"inputs": ids[:50], **history}).status_code == 200
    assert portal.post(read, {"inputs": ids[:51], **history}).status_code == 400


def test_lists_hold_100_a_page_and_50_with_history(portal):
    """One more is a 400, and so is a page of none."""
    for limit, status in ((0, 400), (100, 200), (101, 400)):
        assert portal.http.get(CONTACTS, params={"limit": limit}).status_code == status
    for limit, status in ((50, 200), (51, 400)):
        query = {"limit": limit, "propertiesWithHistory": "email"}
        assert portal.http.get(CONTACTS, params=query).status_code == status


def test_one_request_stamps_all_it_writes_with_one_instant(portal):
    """A batch of three contacts and two properties leaves six entries with one time, ours as their source."""
    rows = [{"id": one, "properties": {"sj_credits": "9", "cs_credits": "9"}} for one in portal.ids(limit=3)]
    portal.post(f"{CONTACTS}/batch/update", {"inputs": rows})
    names = ["sj_credits", "cs_credits"]
    body = portal.post(f"{CONTACTS}/batch/read", {"inputs": rows, "propertiesWithHistory": names}).json()
    entries = [one["propertiesWithHistory"][name][0] for one in body["results"] for name in names]
    assert len({one["timestamp"] for one in entries}) == 1
    assert {one["sourceType"] for one in entries} == {"INTEGRATION"}
    assert len({one["sourceId"] for one in entries}) == 1
    assert {one["updatedAt"] for one in body["results"]} == {entries[0]["timestamp"]}


def test_history_is_newest_first_limited_and_tells_persons_from_apps(portal):
    """Twenty entries stay; a person's edit names the person; writing the same value again leaves no entry."""
    [one] = portal.ids(limit=1)
    for value in (*range(30, 55), 54):
        portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {"sj_credits": str(value)}})
    portal.door("POST", "edits", object_type="contacts", id=one, properties={"sj_credits": "7"}, user="77")
    url = f"{CONTACTS}/{one}?propertiesWithHistory=sj_credits"
    entries = portal.http.get(url).json()["propertiesWithHistory"]["sj_credits"]
    assert [entry["value"] for entry in entries[:3]] == ["7", "54", "53"]
    assert len(entries) == 20
    assert entries[0]["sourceType"] == "CRM_UI"
    assert entries[0]["sourceId"] == "userId:77"
    assert entries[0]["updatedByUserId"] == 77


def test_how_many_entries_stay_is_a_setting(portal):
    """Three, when three are asked for: the newest."""
    [one] = portal.ids(limit=1)
    portal.door("POST", "settings", history_limit=3)
    for value in range(30, 36):
        portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {"sj_credits": str(value)}})
    entries = _history(portal, f"{CONTACTS}/{one}?propertiesWithHistory=sj_credits")
    assert [entry["value"] for entry in entries] == ["35", "34", "33"]


def test_same_value_entry_and_history_lag_are_settings(portal):
    """Both readings of what HubSpot does can be played."""
    [one] = portal.ids(limit=1)
    portal.door("POST", "settings", same_value_entry=True)
    portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {"sj_credits": "5"}})
    url = f"{CONTACTS}/{one}?propertiesWithHistory=sj_credits"
    assert [entry["value"] for entry in _history(portal, url)] == ["5", "5"]
    portal.door("POST", "settings", history_lag_ms=60_000)
    assert [entry["value"] for entry in _history(portal, url)] == ["5"]
    portal.door("POST", "settings", advance_s=61)
    assert [entry["value"] for entry in _history(portal, url)] == ["5", "5"]


def test_the_times_of_one_request_can_be_made_to_differ(portal):
    """By `stamp_skew_ms`, before the request's own time, which is the record's; histories stay in order."""
    [one] = portal.ids(limit=1)
    portal.door("POST", "settings", stamp_skew_ms=1500)
    url = f"{CONTACTS}/{one}?propertiesWithHistory=sj_credits,cs_credits"
    for number, after_s in ((20, 10), (21, 10), (22, 0.5)):
        portal.door("POST", "settings", advance_s=after_s)
        values = {"sj_credits": str(number), "cs_credits": str(number)}
        portal.http.patch(f"{CONTACTS}/{one}", json={"properties": values})
    record = portal.http.get(url).json()
    times = {
        name: [datetime.fromisoformat(each["timestamp"]) for each in entries]
        for name, entries in record["propertiesWithHistory"].items()
    }
    newest, *apart = (
        abs(a - b) for a, b in zip(times["sj_credits"][:3], times["cs_credits"][:3], strict=True)
    )
    assert apart == [timedelta(milliseconds=1500)] * 2
    assert newest <= timedelta(milliseconds=1500)
    assert all(each == sorted(each, reverse=True) and len(set(each)) == len(each) for each in times.values())
    newest = max(moment for each in times.values() for moment in each)
    assert newest == datetime.fromisoformat(record["updatedAt"])
    created = portal.post(CONTACTS, {"properties": {"email": "a@b.example", "sj_credits": "1"}}).json()["id"]
    shown = portal.http.get(f"{CONTACTS}/{created}?propertiesWithHistory=sj_credits,email").json()
    ((number,), (email,)) = shown["propertiesWithHistory"].values()
    assert number["timestamp"] != email["timestamp"]


def _history(portal, url):
    return portal.http.get(url).json()["propertiesWithHistory"]["sj_credits"]


def test_ranges_of_ids_can_be_walked_side_by_side(portal):
    """`after` is an id to start from, so two halves make the whole."""
    every = portal.ids(limit=100)
    half = portal.http.get(CONTACTS, params={"limit": 100, "after": every[50]}).json()["results"]
    between = portal.http.get(CONTACTS, params={"limit": 3, "after": int(every[50]) + 1}).json()["results"]
    assert half[0]["id"] == every[50]
    assert between[0]["id"] == every[51]


def test_archived_records_leave_lists_and_free_their_values(portal):
    """They are read with `archived=true` only, and their e-mail can be used again."""
    first, second = portal.ids(limit=2)
    assert portal.http.delete(f"{CONTACTS}/{first}").status_code == 204
    assert portal.http.delete(f"{CONTACTS}/{first}").status_code == 204, (
        "there is nothing to archive, as seen"
    )
    assert portal.ids(limit=1) == [second]
    gone = portal.http.get(CONTACTS, params={"archived": "true"}).json()["results"]
    assert [(one["id"], one["archived"]) for one in gone] == [(first, True)]
    assert portal.post(CONTACTS, {"properties": {"email": "student0@example.com"}}).status_code == 201


def test_a_roll_up_follows_the_association_and_cannot_be_written(portal):
    """A booking's date is its session's; writing it is refused."""
    exam = portal.http.get(EXAMS, params={"limit": 1, "properties": "exam_date"}).json()["results"][0]
    made = portal.post("/crm/v3/objects/bookings", {"properties": {"booking_id": "b"}}).json()["id"]
    url = f"/crm/v3/objects/bookings/{made}"
    assert portal.http.patch(url, json={"properties": {"exam_date": "2027-01-01"}}).status_code == 400
    portal.http.put(f"/crm/v4/objects/bookings/{made}/associations/default/mock_exams/{exam['id']}")
    shown = portal.http.get(url, params={"properties": "exam_date", "associations": "2-50158913"}).json()
    assert shown["properties"]["exam_date"] == exam["properties"]["exam_date"]
    assert shown["associations"]["p8123456_mock_exams"]["results"][0]["id"] == exam["id"]


def test_an_association_to_nothing_creates_nothing(portal):
    """A booking whose contact does not exist is refused whole, and so is the batch it is in."""
    bad = {"to": {"id": "17"}, "types": [{"associationCategory": "USER_DEFINED", "associationTypeId": 1301}]}
    answer = portal.post(
        "/crm/v3/objects/bookings", {"properties": {"booking_id": "b"}, "associations": [bad]}
    )
    assert answer.status_code == 400
    rows = [{"properties": {"booking_id": "a"}}, {"properties": {"booking_id": "b"}, "associations": [bad]}]
    assert portal.post("/crm/v3/objects/bookings/batch/create", {"inputs": rows}).status_code == 400
    assert portal.ids("bookings") == []


def test_bad_bodies_and_unknown_types_are_refused_in_hubspots_words(portal):
    """Malformed JSON, a wrong shape, a type the portal has not got, a path there is not."""
    assert portal.http.post(CONTACTS, content=b"{").status_code == 400
    assert portal.post(CONTACTS, {"properties": []}).status_code == 400
    unknown = portal.http.get("/crm/v3/objects/widgets")
    assert (unknown.status_code, unknown.json()["message"]) == (
        400,
        "Unable to infer object type from: widgets",
    )
    assert portal.http.get("/crm/v3/nothing").status_code == 404
