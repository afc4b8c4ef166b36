"""Search: its operators, its ceilings, and an index with a clock of its own."""

import pytest

PATH = "/crm/v3/objects/contacts/search"


def _search(portal, *filters, **more):
    body = {"filterGroups": [{"filters": [_filter(*one) for one in filters]}] if filters else [], **more}
    return portal.post(PATH, body)


def _filter(name, operator, value=None, high=None):
    one = {"propertyName": name, "operator": operator}
    if isinstance(value, list):
        one["values"] = value
    elif value is not None:
        one["value"] = value
    return {**one, "highValue": high} if high is not None else one


def _students(answer):
    assert answer.status_code == 200, answer.text
    return [int(one["properties"]["student_id"]) - 1_599_000 for one in answer.json()["results"]]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([("student_id", "EQ", "1599003"), ("email", "EQ", "STUDENT3@example.com")], [3]),
        ([("student_id", "IN", ["1599003", "1599005"])], [3, 5]),
        ([("email", "IN", ["STUDENT3@example.com"])], []),
        ([("hs_object_id", "LTE", "96384010541")], [0, 1]),
        ([("hs_object_id", "LT", "96384010541")], [0]),
        ([("createdate", "BETWEEN", "2026-01-01T05:00:25Z", "2026-01-01T05:00:50Z")], [1, 2]),
        ([("lastmodifieddate", "GTE", "1767249800000")], [248, 249]),
        ([("lastmodifieddate", "GT", "1767249800000")], [249]),
        ([("ndecc_exam_date", "HAS_PROPERTY")], []),
        ([("student_id", "NOT_HAS_PROPERTY")], []),
        ([("student_id", "CONTAINS_TOKEN", "*99249")], [249]),
        ([("email", "CONTAINS_TOKEN", "student12")], [12]),
        ([("sj_credits", "GTE", "5"), ("sj_credits", "LT", "5")], []),
    ],
)
def test_operators_find_what_they_say(portal, filters, found):
    """Instants in any form, numbers as numbers, text without case save in lists."""
    assert _students(_search(portal, *filters, properties=["student_id"], limit=20)) == found


def test_the_operators_of_absence_are_the_complement(portal):
    """EQ and NEQ, IN and NOT_IN, HAS and NOT_HAS together find everybody once."""
    for one, other, value in (
        ("EQ", "NEQ", "5"),
        ("IN", "NOT_IN", ["5", "6"]),
        ("HAS_PROPERTY", "NOT_HAS_PROPERTY", None),
    ):
        totals = [_search(portal, ("sj_credits", each, value)).json()["total"] for each in (one, other)]
        assert min(totals) > 0
        assert sum(totals) == 250, (one, totals)


def test_groups_are_alternatives_and_sorts_are_single(portal):
    """Two groups find the union; one sort is taken, two are refused."""
    groups = [{"filters": [_filter("student_id", "EQ", f"159900{i}")]} for i in (9, 4)]
    body = {"filterGroups": groups, "properties": ["student_id"], "sorts": ["-student_id"]}
    assert _students(portal.post(PATH, body)) == [9, 4]
    ascending = [{"propertyName": "student_id", "direction": "ASCENDING"}]
    assert _students(portal.post(PATH, {**body, "sorts": ascending})) == [4, 9]
    assert portal.post(PATH, {**body, "sorts": ["student_id", "email"]}).status_code == 400
    assert portal.post(PATH, {**body, "sorts": ["nope"]}).status_code == 400


def test_pages_hold_200_and_the_total_is_right(portal):
    """`after` is an offset; the last page has no `paging`."""
    first = _search(portal, limit=200, properties=["student_id"])
    assert (len(first.json()["results"]), first.json()["total"]) == (200, 250)
    after = first.json()["paging"]["next"]["after"]
    second = _search(portal, limit=200, after=after, properties=["student_id"])
    assert _students(second) == list(range(200, 250))
    assert "paging" not in second.json()
    assert len(_search(portal).json()["results"]) == 10, "ten by default"


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 201},
        {"limit": 200, "after": "9900"},
        {"after": "x"},
        {"filterGroups": [{"filters": [_filter("email", "EQ", "a")] * 7}]},
        {"filterGroups": [{"filters": [_filter("email", "EQ", "a")]}] * 6},
        {"filterGroups": [{"filters": [_filter("email", "EQ", "a")] * 5}] * 4},
        {"query": "x" * 3_000},
        {"filterGroups": [{"filters": [_filter("nope", "EQ", "a")]}]},
        {"filterGroups": [{"filters": [_filter("student_id", "GTE", "1")]}]},
        {"filterGroups": [{"filters": [_filter("sj_credits", "EQ", "many")]}]},
        {"filterGroups": [{"filters": [_filter("sj_credits", "LIKE", "5")]}]},
        {"filterGroups": [{"filters": [_filter("sj_credits", "IN")]}]},
    ],
)
def test_what_search_refuses(portal, body):
    """Beyond 200 a page, 10,000 in all, 6 filters a group, 5 groups, 18 filters, 3,000 characters."""
    assert portal.post(PATH, body).status_code == 400


def test_the_last_page_within_10_000_is_answered(portal):
    """The ceiling itself is still allowed."""
    assert _search(portal, limit=200, after="9800").status_code == 200


def test_the_index_lags_behind_the_records(serve):
    """New records are not found, changed ones are found as they were, until the lag has passed."""
    portal = serve(contacts=3, search_lag_s=60)
    first, second, third = portal.ids()
    contacts = "/crm/v3/objects/contacts"
    portal.http.patch(f"{contacts}/{first}", json={"properties": {"student_id": "7"}})
    portal.http.patch(f"{contacts}/{first}", json={"properties": {"student_id": "8"}})
    portal.http.delete(f"{contacts}/{second}")
    portal.post(contacts, {"properties": {"email": "new@x.io"}})
    assert _search(portal).json()["total"] == 3
    old = _search(portal, ("student_id", "EQ", "1599000"), properties=["student_id"]).json()["results"]
    assert [(one["id"], one["properties"]["student_id"]) for one in old] == [(first, "1599000")]
    assert _search(portal, ("student_id", "EQ", "8")).json()["total"] == 0
    portal.door("POST", "settings", advance_s=61)
    assert _search(portal, ("student_id", "EQ", "8")).json()["total"] == 1
    assert _search(portal, ("email", "EQ", "new@x.io")).json()["total"] == 1
    assert _search(portal).json()["total"] == 3, f"{second} is archived, {third} as ever"


def test_a_large_portal_answers_equality_from_an_index_that_follows_writes(serve):
    """Beyond a few hundred records equality uses an index; writes move records within it."""
    portal = serve(contacts=2_000)
    [first] = portal.ids(limit=1)
    find = ("student_id", "EQ", "1599000")
    assert _search(portal, find).json()["total"] == 1
    portal.http.patch(f"/crm/v3/objects/contacts/{first}", json={"properties": {"student_id": "x1"}})
    assert _search(portal, find).json()["total"] == 0
    assert _search(portal, ("student_id", "EQ", "X1")).json()["total"] == 1


def test_more_contacts_than_the_ceiling_with_one_time_can_be_walked_by_id(serve):
    """Of 12,000 contacts changed at one instant none is missed and none seen twice."""
    portal = serve()
    portal.door("POST", "populate", contacts=12_000, same_time=True)
    since = ("lastmodifieddate", "GTE", "1767243600000")
    assert _search(portal, since).json()["total"] == 12_000
    assert _search(portal, since, limit=200, after="10000").status_code == 400
    seen, last = [], "0"
    while page := _search(
        portal, since, ("hs_object_id", "GT", last), sorts=["hs_object_id"], limit=200
    ).json()["results"]:
        seen += [one["id"] for one in page]
        last = seen[-1]
    assert seen == [str(one) for one in portal.app.portal.store("contacts").ids]
    assert len(seen) == 12_000
