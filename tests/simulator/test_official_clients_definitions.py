"""Both official clients with what a portal defines: properties, groups, schemas, labels, associations."""

import pytest
from hubspot.crm.associations import (
    BatchInputPublicAssociation,
    BatchInputPublicObjectId,
    PublicAssociation,
    PublicObjectId,
    v4,
)
from hubspot.crm.associations.v4 import schema as labels
from hubspot.crm.properties import (
    ApiException,
    BatchInputPropertyCreate,
    BatchInputPropertyName,
    BatchReadInputPropertyName,
    PropertyCreate,
    PropertyGroupCreate,
    PropertyGroupUpdate,
    PropertyUpdate,
)
from hubspot.crm.schemas import (
    AssociationDefinitionEgg,
    ObjectSchemaEgg,
    ObjectTypeDefinitionLabels,
    ObjectTypeDefinitionPatch,
)
from hubspot_sdk import HubSpot

from hubspot import HubSpot as LegacyClient

EXAMS, BOOKINGS = "2-50158913", "2-50158943"


@pytest.fixture
def legacy(portal):
    return LegacyClient(access_token="pat-test", host=portal.url)


@pytest.fixture
def dated(portal):
    """The sdk with every answer validated against its models."""
    with HubSpot(
        access_token="pat-test", base_url=portal.url, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
def pairs(portal):
    """Three bookings and a contact each."""
    rows = {"inputs": [{"properties": {"booking_id": str(i)}} for i in range(3)]}
    made = portal.post(f"/crm/v3/objects/{BOOKINGS}/batch/create", rows).json()["results"]
    return list(zip([one["id"] for one in made], portal.ids(limit=3), strict=True))


def test_the_v3_client_changes_and_archives_properties(legacy, portal):
    """Label and description change; an archived property is listed as such and its values are gone."""
    api = legacy.crm.properties.core_api
    fresh = PropertyCreate(
        name="note", label="Note", type="string", field_type="text", group_name="contactinformation"
    )
    batch = legacy.crm.properties.batch_api
    made = batch.create("contacts", BatchInputPropertyCreate(inputs=[fresh]))
    assert [one.name for one in made.results] == ["note"]
    changed = api.update("contacts", "note", PropertyUpdate(label="A note", description="What staff wrote"))
    assert (changed.label, changed.description) == ("A note", "What staff wrote")
    assert api.get_by_name("contacts", "note").description == "What staff wrote"
    [one] = portal.ids(limit=1)
    portal.http.patch(f"/crm/v3/objects/contacts/{one}", json={"properties": {"note": "x"}})
    read = batch.read("contacts", BatchReadInputPropertyName(inputs=[{"name": "note"}], archived=False))
    assert [each.label for each in read.results] == ["A note"]
    batch.archive("contacts", BatchInputPropertyName(inputs=[{"name": "note"}]))
    with pytest.raises(ApiException) as gone:
        api.get_by_name("contacts", "note")
    assert gone.value.status == 404
    assert [each.name for each in api.get_all("contacts", archived=True).results] == ["note"]
    batch.create("contacts", BatchInputPropertyCreate(inputs=[fresh]))
    shown = portal.http.get(f"/crm/v3/objects/contacts/{one}", params={"properties": "note"}).json()
    assert shown["properties"]["note"] is None
    with pytest.raises(ApiException) as refused:
        api.archive("contacts", "email")
    assert refused.value.status == 400


def test_the_v3_client_keeps_groups_of_properties(legacy, portal):
    """Created, changed, listed, used by a property, and archived once it is empty."""
    api = legacy.crm.properties.groups_api
    made = api.create("contacts", PropertyGroupCreate(name="ledger", label="Ledger"))
    assert (made.name, made.label, made.archived) == ("ledger", "Ledger", False)
    assert api.update("contacts", "ledger", PropertyGroupUpdate(label="Credits")).label == "Credits"
    assert {"contactinformation", "ledger"} <= {one.name for one in api.get_all("contacts").results}
    fresh = {"name": "note", "label": "Note", "type": "string", "fieldType": "text", "groupName": "ledger"}
    assert portal.post("/crm/v3/properties/contacts", {**fresh, "groupName": "nowhere"}).status_code == 400
    assert portal.post("/crm/v3/properties/contacts", fresh).json()["groupName"] == "ledger"
    with pytest.raises(ApiException) as refused:
        api.archive("contacts", "ledger")
    assert refused.value.status == 400
    portal.http.delete("/crm/v3/properties/contacts/note")
    api.archive("contacts", "ledger")
    with pytest.raises(ApiException) as gone:
        api.get_by_name("contacts", "ledger")
    assert gone.value.status == 404


def test_the_v3_client_makes_and_removes_a_custom_object(legacy, portal):
    """With properties and an association; while it has records it cannot be removed."""
    api = legacy.crm.schemas.core_api
    prop = {"name": "title", "label": "Title", "type": "string", "fieldType": "text"}
    made = api.create(
        ObjectSchemaEgg(
            name="rooms",
            labels=ObjectTypeDefinitionLabels(singular="Room", plural="Rooms"),
            properties=[prop],
            required_properties=["title"],
            primary_display_property="title",
            associated_objects=["CONTACT"],
        )
    )
    kind = made.object_type_id
    assert made.fully_qualified_name == "p8123456_rooms"
    patch = ObjectTypeDefinitionPatch(labels=ObjectTypeDefinitionLabels(singular="Hall"))
    assert api.update(kind, patch).labels.singular == "Hall"
    egg = AssociationDefinitionEgg(from_object_type_id=kind, to_object_type_id=EXAMS, name="room_of")
    link = api.create_association("rooms", egg)
    assert (link.from_object_type_id, link.to_object_type_id, link.name) == (kind, EXAMS, "room_of")
    assert link.id in {one.id for one in api.get_by_id("rooms").associations}
    assert portal.post(f"/crm/v3/objects/{kind}", {"properties": {}}).status_code == 400, "title is required"
    room = portal.post(f"/crm/v3/objects/{kind}", {"properties": {"title": "B9"}}).json()["id"]
    [exam] = portal.ids("mock_exams", limit=1)
    portal.http.put(f"/crm/v4/objects/{kind}/{room}/associations/default/{EXAMS}/{exam}")
    assert portal.http.delete(f"/crm/v3/schemas/{kind}").status_code == 400
    portal.http.delete(f"/crm/v3/objects/{kind}/{room}")
    api.archive_association("rooms", link.id)
    api.archive(kind)
    assert kind not in {one.object_type_id for one in api.get_all().results}
    assert portal.door("GET", f"records/mock_exams/{exam}").json()["associations"] == {}


def test_the_v4_client_associates_with_labels_in_batches(legacy, pairs):
    """Created with a label, read in batches, the label taken away, then the rest."""
    api = legacy.crm.associations.v4
    made = api.schema.definitions_api.create(
        BOOKINGS,
        "contacts",
        labels.PublicAssociationDefinitionCreateRequest(
            name="paid_by", label="paid by", inverse_label="paid for"
        ),
    )
    [ours, theirs] = made.results
    assert (ours.label, theirs.label) == ("paid by", "paid for")
    spec = {"associationCategory": ours.category, "associationTypeId": ours.type_id}
    rows = [{"from": {"id": one}, "to": {"id": other}, "types": [spec]} for one, other in pairs]
    answer = api.batch_api.create(BOOKINGS, "contacts", v4.BatchInputPublicAssociationMultiPost(inputs=rows))
    assert [one.labels for one in answer.results] == [["paid by"]] * 3
    ids = v4.BatchInputPublicFetchAssociationsBatchRequest(inputs=[{"id": other} for _, other in pairs])
    read = api.batch_api.get_page("contacts", BOOKINGS, ids)
    assert [one.to[0].to_object_id for one in read.results] == [one for one, _ in pairs]
    assert {kind.label for kind in read.results[0].to[0].association_types} == {None, "paid for"}
    first = v4.BatchInputPublicAssociationMultiPost(inputs=rows[:1])
    api.batch_api.archive_labels(BOOKINGS, "contacts", first)
    [left] = api.basic_api.get_page(BOOKINGS, pairs[0][0], "contacts").results
    assert [kind.label for kind in left.association_types] == [None]
    gone = [{"from": {"id": one}, "to": [{"id": other}]} for one, other in pairs]
    api.batch_api.archive(BOOKINGS, "contacts", v4.BatchInputPublicAssociationMultiArchive(inputs=gone))
    nobody = api.batch_api.get_page("contacts", BOOKINGS, ids)
    assert (nobody.results, nobody.num_errors) == ([], 3)
    api.schema.definitions_api.update(
        BOOKINGS,
        "contacts",
        labels.PublicAssociationDefinitionUpdateRequest(association_type_id=ours.type_id, label="owed by"),
    )
    known = api.schema.definitions_api.get_all(BOOKINGS, "contacts").results
    assert {one.label for one in known} == {None, "owed by"}
    api.schema.definitions_api.remove(BOOKINGS, "contacts", ours.type_id)
    assert len(api.schema.definitions_api.get_all(BOOKINGS, "contacts").results) == len(known) - 1


def test_taking_the_unlabelled_kind_away_takes_the_labels_too(portal):
    """As documented for the batch that archives labels."""
    first, second = portal.ids("mock_exams", limit=2)
    spec = {"associationCategory": "USER_DEFINED", "associationTypeId": 1340}
    row = {"from": {"id": first}, "to": {"id": second}, "types": [spec]}
    url = f"/crm/v4/associations/{EXAMS}/{EXAMS}/batch"
    assert portal.post(f"{url}/create", {"inputs": [row]}).status_code == 201
    plain = {**row, "types": [{**spec, "associationTypeId": 1307}]}
    assert portal.post(f"{url}/labels/archive", {"inputs": [plain]}).status_code == 204
    assert portal.http.get(f"/crm/v4/objects/{EXAMS}/{first}/associations/{EXAMS}").json()["results"] == []


def test_the_v3_client_associates_in_batches(legacy, pairs):
    """The older calls name the kind by its name."""
    kinds = legacy.crm.associations.schema.types_api.get_all(BOOKINGS, "contacts").results
    assert [one.name for one in kinds] == ["bookings_to_contacts"]
    inputs = [
        PublicAssociation(
            _from=PublicObjectId(id=one), to=PublicObjectId(id=other), type="bookings_to_contacts"
        )
        for one, other in pairs
    ]
    api = legacy.crm.associations.batch_api
    made = api.create(BOOKINGS, "contacts", BatchInputPublicAssociation(inputs=inputs))
    assert [one.to.id for one in made.results] == [other for _, other in pairs]
    ids = BatchInputPublicObjectId(inputs=[PublicObjectId(id=one) for one, _ in pairs])
    read = api.read(BOOKINGS, "contacts", ids)
    assert [(one.to[0].id, one.to[0].type) for one in read.results] == [
        (other, "bookings_to_contacts") for _, other in pairs
    ]
    api.archive(BOOKINGS, "contacts", BatchInputPublicAssociation(inputs=inputs[:2]))
    assert [one._from.id for one in api.read(BOOKINGS, "contacts", ids).results] == [pairs[2][0]]


def test_the_dated_client_takes_every_answer_about_associations(dated, pairs):
    """Labels and batches on dated paths, each answer validated."""
    api = dated.crm
    made = api.associations_schema.labels.create_label(
        "contacts", from_object_type=BOOKINGS, label="paid by", name="paid_by", inverse_label="paid for"
    )
    spec = {"association_category": "USER_DEFINED", "association_type_id": made.results[0].type_id}
    rows = [{"from": {"id": one}, "to": {"id": other}, "types": [spec]} for one, other in pairs]
    written = api.associations.batch.create("contacts", from_object_type=BOOKINGS, inputs=rows)
    assert [one.labels for one in written.results] == [["paid by"]] * 3
    plain = [{"from": {"id": one}, "to": {"id": other}} for one, other in pairs]
    done = api.associations.batch.create_default("contacts", from_object_type=BOOKINGS, inputs=plain)
    assert len(done.results) == 6, "both directions"
    read = api.associations.batch.get(
        "contacts", from_object_type=BOOKINGS, inputs=[{"id": one} for one, _ in pairs]
    )
    assert [one.to[0].to_object_id for one in read.results] == [other for _, other in pairs]
    api.associations.batch.delete_labels("contacts", from_object_type=BOOKINGS, inputs=rows)
    gone = [{"from": {"id": one}, "to": [{"id": other}]} for one, other in pairs]
    api.associations.batch.delete("contacts", from_object_type=BOOKINGS, inputs=gone)
    labelled = api.associations_schema.labels
    labelled.delete_label(made.results[0].type_id, from_object_type=BOOKINGS, to_object_type="contacts")
    known = labelled.list_labels("contacts", from_object_type=BOOKINGS).results
    assert [one.label for one in known] == [None]


def test_the_dated_client_takes_every_answer_about_definitions(dated):
    """Properties, groups and schemas on dated paths, each answer validated."""
    properties = dated.crm.properties
    group = properties.groups.create("contacts", name="ledger", label="Ledger")
    made = properties.create(
        "contacts", name="note", label="Note", type="string", field_type="text", group_name=group.name
    )
    assert properties.update("note", object_type="contacts", description="d").description == "d"
    assert properties.get("note", object_type="contacts").label == made.label
    properties.delete("note", object_type="contacts")
    assert [one.name for one in properties.list("contacts", archived=True).results] == ["note"]
    properties.groups.delete("ledger", object_type="contacts")
    assert "ledger" not in {one.name for one in properties.groups.list("contacts").results}
    schemas = dated.crm.object_schemas
    assert schemas.update(
        "bookings", clear_description=False, searchable_properties=["booking_id"]
    ).searchable_properties == ["booking_id"]
    found = schemas.batch.get(
        inputs=["bookings", "mock_exams"],
        include_association_definitions=True,
        include_audit_metadata=True,
        include_property_definitions=True,
    )
    assert [one.name for one in found.results] == ["bookings", "mock_exams"]
