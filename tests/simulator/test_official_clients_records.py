"""Both official clients through a record's life: merges, privacy deletions, partial batches, histories."""

import pytest
from hubspot.crm.contacts import ApiException as ContactsError
from hubspot.crm.contacts import (
    BatchInputSimplePublicObjectBatchInputForCreate,
    BatchInputSimplePublicObjectBatchInputUpsert,
    BatchReadInputSimplePublicObjectId,
    PublicGdprDeleteInput,
    PublicMergeInput,
)
from hubspot_sdk import HubSpot, NotFoundError

from hubspot import HubSpot as LegacyClient

EXAMS = "2-50158913"


@pytest.fixture
def legacy(portal):
    return LegacyClient(access_token="pat-test", host=portal.url)


@pytest.fixture
def dated(portal):
    """The sdk with every answer validated against its models, which take no null for a value."""
    with HubSpot(
        access_token="pat-test", base_url=portal.url, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def test_the_v3_client_merges_and_deletes_for_privacy(legacy, portal):
    """The merged contact is found under both ids; deleted, under none."""
    first, second = portal.ids(limit=2)
    api = legacy.crm.contacts.basic_api
    made = api.merge(PublicMergeInput(primary_object_id=first, object_id_to_merge=second))
    assert made.id not in {first, second}
    assert {api.get_by_id(one).id for one in (first, second)} == {made.id}
    names = ["hs_merged_object_ids", "hs_additional_emails"]
    shown = api.get_by_id(second, properties=names).properties
    assert [shown[name] for name in names] == [f"{first};{second}", "student1@example.com"]
    api.purge(PublicGdprDeleteInput(object_id=made.id))
    for one in (first, second, made.id):
        with pytest.raises(ContactsError) as gone:
            api.get_by_id(one)
        assert gone.value.status == 404
    api.purge(PublicGdprDeleteInput(object_id="student2@example.com", id_property="email"))
    with pytest.raises(ContactsError) as gone:
        api.get_by_id("student2@example.com", id_property="email")
    assert gone.value.status == 404


def test_the_v3_client_sees_what_part_of_a_batch_failed(legacy):
    """A 207 of a traced batch lists its errors in the client's own model, results beside them."""
    api = legacy.crm.contacts.batch_api
    rows = [
        {"properties": {"email": email}, "associations": [], "objectWriteTraceId": trace}
        for trace, email in (("a", "a@x.io"), ("b", "student3@example.com"))
    ]
    answer = api.create(BatchInputSimplePublicObjectBatchInputForCreate(inputs=rows))
    assert [one.properties["email"] for one in answer.results] == ["a@x.io"]
    assert answer.num_errors == 1
    assert answer.errors[0].context == {"objectWriteTraceId": ["b"]}
    assert (answer.errors[0].category, answer.status) == ("CONFLICT", "COMPLETE")
    missing = api.read(
        BatchReadInputSimplePublicObjectId(
            inputs=[{"id": "17"}, {"id": answer.results[0].id}], properties=[], properties_with_history=[]
        )
    )
    assert (len(missing.results), missing.errors[0].context) == (1, {"ids": ["17"]})


def test_the_v3_client_upserts_by_a_property_of_ours(legacy, portal):
    """Created first, updated next, and the history tells both writes."""
    prop = {"name": "tallybook_id", "label": "Id", "type": "string", "fieldType": "text"}
    portal.post("/crm/v3/properties/contacts", {**prop, "hasUniqueValue": True})
    api = legacy.crm.contacts.batch_api
    for credit, new in (("1", True), ("2", False)):
        row = {
            "id": "u-1",
            "idProperty": "tallybook_id",
            "properties": {"email": "u@x.io", "sj_credits": credit},
        }
        answer = api.upsert(BatchInputSimplePublicObjectBatchInputUpsert(inputs=[row]))
        assert [one.new for one in answer.results] == [new]
        portal.door("POST", "settings", advance_s=1)
    read = api.read(
        BatchReadInputSimplePublicObjectId(
            inputs=[{"id": "u-1"}],
            id_property="tallybook_id",
            properties=[],
            properties_with_history=["sj_credits"],
        )
    )
    entries = read.results[0].properties_with_history["sj_credits"]
    assert [(one.value, one.source_type) for one in entries] == [("2", "INTEGRATION"), ("1", "INTEGRATION")]
    assert entries[0].timestamp > entries[1].timestamp


def test_the_dated_client_merges_and_deletes_for_privacy(dated, portal):
    """On dated paths, with the models validated."""
    first, second = portal.ids(limit=2)
    contacts = dated.crm.objects.contacts
    portal.http.patch(f"/crm/v3/objects/contacts/{first}", json={"properties": {"phone": "1"}})
    made = contacts.merge(primary_object_id=first, object_id_to_merge=second)
    assert contacts.get(second, properties=["email"]).id == made.id
    contacts.gdpr_delete(object_id=made.id)
    with pytest.raises(NotFoundError):
        contacts.get(first)
    exams = portal.ids("mock_exams", limit=2)
    whole = dated.crm.objects.custom.merge(EXAMS, primary_object_id=exams[0], object_id_to_merge=exams[1])
    assert dated.crm.objects.custom.get(exams[1], object_type=EXAMS, properties=["mock_type"]).id == whole.id


def test_the_dated_client_takes_every_answer_about_records(dated):
    """Create, get, list, update, search, archive, and all of it in batches, each validated."""
    contacts = dated.crm.objects.contacts
    one = contacts.create(properties={"email": "s@x.io"}, associations=[])
    assert contacts.update(one.id, properties={"sj_credits": "2"}).properties["sj_credits"] == "2"
    shown = contacts.get(one.id, properties=["email"], properties_with_history=["sj_credits"])
    assert [entry.value for entry in shown.properties_with_history["sj_credits"]] == ["2"]
    assert len(contacts.list(limit=100, properties=["email"]).results) == 100
    filters = [{"property_name": "email", "operator": "EQ", "value": "s@x.io"}]
    found = contacts.search(
        filter_groups=[{"filters": filters}], properties=["email"], limit=1, after="0", sorts=[]
    )
    assert (found.total, found.results[0].id) == (1, one.id)
    batch = contacts.batch
    made = batch.create(inputs=[{"properties": {"email": f"s{i}@x.io"}, "associations": []} for i in (1, 2)])
    ids = [{"id": row.id} for row in made.results]
    batch.update(inputs=[{**row, "properties": {"sj_credits": "1"}} for row in ids])
    read = batch.get(inputs=ids, properties=["sj_credits"], properties_with_history=["sj_credits"])
    assert {row.properties["sj_credits"] for row in read.results} == {"1"}
    row = {"id": "s1@x.io", "id_property": "email", "properties": {"email": "s1@x.io"}}
    assert not batch.upsert(inputs=[row]).results[0].new
    batch.delete(inputs=ids)
    contacts.delete(one.id)
    assert contacts.get(one.id, archived=True, properties=["email"]).archived


def test_the_dated_client_reads_the_rules_of_properties(dated, portal):
    """The validation rules set at the back door are in its models."""
    rule = {"object_type": "0-1", "property": "sj_credits", "type": "MAX_NUMBER", "arguments": ["20"]}
    portal.door("POST", "rules", **rule)
    rules = dated.crm.properties_validations
    [only] = rules.get_by_object_type_id_and_property_name("sj_credits", object_type_id="0-1").results
    assert (only.rule_type, only.rule_arguments) == ("MAX_NUMBER", ["20"])
    [named] = rules.get_by_object_type_id("0-1").results
    assert named.property_name == "sj_credits"
