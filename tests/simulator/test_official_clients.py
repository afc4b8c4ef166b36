"""Two official clients that know nothing of each other work against the simulator unchanged."""

import pytest
from hubspot.crm.associations.v4 import BatchInputPublicDefaultAssociationMultiPost, PublicObjectId
from hubspot.crm.contacts import (
    ApiException,
    BatchInputSimplePublicObjectBatchInput,
    BatchInputSimplePublicObjectBatchInputForCreate,
    BatchInputSimplePublicObjectBatchInputUpsert,
    BatchInputSimplePublicObjectId,
    BatchReadInputSimplePublicObjectId,
    PublicObjectSearchRequest,
    SimplePublicObjectInput,
    SimplePublicObjectInputForCreate,
)
from hubspot.crm.objects import SimplePublicObjectInputForCreate as ObjectForCreate
from hubspot.crm.properties import PropertyCreate
from hubspot_sdk import ConflictError, HubSpot, RateLimitError
from hubspot_sdk.types import crm as models
from hubspot_sdk.types.account import PortalInformationResponse

from hubspot import HubSpot as LegacyClient

MOCK_EXAMS = "2-50158913"
BOOKINGS = "2-50158943"


@pytest.fixture
def legacy(portal):
    return LegacyClient(access_token="pat-test", host=portal.url)


@pytest.fixture
def dated(portal):
    with HubSpot(access_token="pat-test", base_url=portal.url, max_retries=0) as client:
        yield client


def test_the_v3_client_lists_reads_and_pages_contacts(legacy):
    """Pages follow `after`; asked properties come as text or null."""
    api = legacy.crm.contacts.basic_api
    page = api.get_page(limit=100, properties=["student_id", "sj_credits"])
    assert [one.properties["student_id"] for one in page.results[:2]] == ["1599000", "1599001"]
    assert page.results[0].properties["sj_credits"] == "5"
    seen = {one.id for one in page.results}
    while page.paging is not None:
        page = api.get_page(limit=100, after=page.paging.next.after)
        seen |= {one.id for one in page.results}
    assert len(seen) == 250
    one = api.get_by_id("student7@example.com", id_property="email", properties_with_history=["email"])
    assert one.properties_with_history["email"][0].source_type == "IMPORT"
    assert one.created_at.year == 2026


def test_the_v3_client_writes_single_contacts(legacy):
    """Create, update, conflict, archive and 404 have the statuses and words of HubSpot."""
    api = legacy.crm.contacts.basic_api
    made = api.create(SimplePublicObjectInputForCreate(properties={"email": "A@X.io", "student_id": "1"}))
    assert made.properties["email"] == "a@x.io"
    changed = api.update(made.id, SimplePublicObjectInput(properties={"sj_credits": "4"}))
    assert changed.properties["sj_credits"] == "4"
    with pytest.raises(ApiException) as refused:
        api.create(SimplePublicObjectInputForCreate(properties={"email": "a@x.io"}))
    assert refused.value.status == 409
    assert f"Contact already exists. Existing ID: {made.id}" in refused.value.body
    api.archive(made.id)
    with pytest.raises(ApiException) as gone:
        api.get_by_id(made.id)
    assert gone.value.status == 404
    assert api.get_by_id(made.id, archived=True).archived


def test_the_v3_client_works_in_batches(legacy):
    """Create, read, update, upsert and archive take lists."""
    api = legacy.crm.contacts.batch_api
    rows = [{"properties": {"email": f"b{i}@x.io"}, "associations": []} for i in range(3)]
    made = api.create(BatchInputSimplePublicObjectBatchInputForCreate(inputs=rows))
    ids = [one.id for one in made.results]
    api.update(
        BatchInputSimplePublicObjectBatchInput(
            inputs=[{"id": one, "properties": {"cs_credits": "2"}} for one in ids]
        )
    )
    read = api.read(
        BatchReadInputSimplePublicObjectId(
            inputs=[{"id": one} for one in ids],
            properties=["cs_credits"],
            properties_with_history=["cs_credits"],
        )
    )
    assert {one.properties["cs_credits"] for one in read.results} == {"2"}
    assert len(read.results[0].properties_with_history["cs_credits"]) == 1
    upsert = api.upsert(
        BatchInputSimplePublicObjectBatchInputUpsert(
            inputs=[
                {
                    "id": "b0@x.io",
                    "idProperty": "email",
                    "properties": {"email": "b0@x.io", "sj_credits": "1"},
                },
                {"id": "b9@x.io", "idProperty": "email", "properties": {"email": "b9@x.io"}},
            ]
        )
    )
    assert [one.new for one in upsert.results] == [False, True]
    api.archive(BatchInputSimplePublicObjectId(inputs=[{"id": one} for one in ids]))
    assert (
        api.read(
            BatchReadInputSimplePublicObjectId(
                inputs=[{"id": ids[0]}], properties=[], properties_with_history=[]
            )
        ).results
        == []
    )


def test_the_v3_client_searches_and_handles_custom_objects(legacy):
    """Search, custom objects, properties, schemas and associations answer in the shapes it knows."""
    hits = legacy.crm.contacts.search_api.do_search(
        PublicObjectSearchRequest(
            filter_groups=[
                {"filters": [{"propertyName": "student_id", "operator": "EQ", "value": "1599007"}]}
            ],
            properties=["email"],
            limit=1,
        )
    )
    assert (hits.total, hits.results[0].properties["email"]) == (1, "student7@example.com")
    exams = legacy.crm.objects.basic_api.get_page(MOCK_EXAMS, limit=2, properties=["mock_type", "capacity"])
    assert exams.results[0].properties["mock_type"] == "Situational Judgment"
    booking = legacy.crm.objects.basic_api.create(
        BOOKINGS, ObjectForCreate(properties={"booking_id": "b-1"}, associations=[])
    )
    legacy.crm.associations.v4.batch_api.create_default(
        BOOKINGS,
        MOCK_EXAMS,
        BatchInputPublicDefaultAssociationMultiPost(
            inputs=[{"from": PublicObjectId(id=booking.id), "to": PublicObjectId(id=exams.results[0].id)}]
        ),
    )
    linked = legacy.crm.associations.v4.basic_api.get_page(BOOKINGS, booking.id, MOCK_EXAMS)
    assert [one.to_object_id for one in linked.results] == [exams.results[0].id]
    made = legacy.crm.properties.core_api.create(
        "contacts",
        PropertyCreate(
            name="tallybook_id",
            label="Tallybook id",
            type="string",
            field_type="text",
            group_name="contactinformation",
            has_unique_value=True,
        ),
    )
    assert made.has_unique_value
    names = {one.name for one in legacy.crm.properties.core_api.get_all("contacts").results}
    assert {"sj_credits", "tallybook_id"} <= names
    schemas = legacy.crm.schemas.core_api.get_all().results
    assert [one.object_type_id for one in schemas] == [MOCK_EXAMS, BOOKINGS]


def test_the_dated_client_works_with_contacts(dated):
    """The same handlers answer the dated paths."""
    contacts = dated.crm.objects.contacts
    page = contacts.list(limit=100, properties=["student_id"])
    assert page.results[0].properties["student_id"] == "1599000"
    assert len(list(page)) == 250, "the client follows the pages by itself"
    row = {"id": "d@x.io", "id_property": "email", "properties": {"email": "d@x.io", "sj_credits": "3"}}
    made = contacts.batch.upsert(inputs=[row])
    assert made.results[0].new
    one = contacts.update(made.results[0].id, properties={"sj_credits": "2"})
    assert one.properties["sj_credits"] == "2"
    read = contacts.batch.get(
        inputs=[{"id": one.id}], properties=["email"], properties_with_history=["sj_credits"]
    )
    assert [entry.value for entry in read.results[0].properties_with_history["sj_credits"]] == ["2", "3"]
    with pytest.raises(ConflictError):
        contacts.create(properties={"email": "d@x.io"}, associations=[])
    found = contacts.search(
        filter_groups=[{"filters": [{"property_name": "email", "operator": "EQ", "value": "d@x.io"}]}],
        properties=["sj_credits"],
        limit=1,
        after="0",
        sorts=[],
    )
    assert (found.total, found.results[0].id) == (1, one.id)
    contacts.delete(one.id)
    contacts.batch.delete(inputs=[{"id": one.id}])


def test_the_dated_client_works_with_custom_objects(dated):
    """Bookings are created with both associations inline and read back through them."""
    exam = dated.crm.objects.custom.list(MOCK_EXAMS, limit=1).results[0]
    contact = dated.crm.objects.contacts.list(limit=1).results[0]
    kinds = {one.to_object_type_id: one for one in _schema(dated, BOOKINGS).associations}
    made = dated.crm.objects.custom.batch.create(
        BOOKINGS,
        inputs=[
            {
                "properties": {"booking_id": "b-2", "is_active": "Active"},
                "associations": [
                    {
                        "to": {"id": target},
                        "types": [
                            {
                                "association_category": "USER_DEFINED",
                                "association_type_id": int(kinds[kind].id),
                            }
                        ],
                    }
                    for kind, target in (("0-1", contact.id), (MOCK_EXAMS, exam.id))
                ],
            }
        ],
    )
    booking = made.results[0]
    linked = dated.crm.associations.batch.get("0-1", from_object_type=BOOKINGS, inputs=[{"id": booking.id}])
    assert [one.to_object_id for one in linked.results[0].to] == [contact.id]
    rolled = dated.crm.objects.custom.get(booking.id, object_type=BOOKINGS, properties=["mock_type"])
    assert rolled.properties["mock_type"] == "Situational Judgment"


def _schema(dated, kind):
    return dated.crm.object_schemas.get(kind)


def test_the_dated_client_defines_properties_and_reads_the_account(dated):
    """Properties, schemas and account information answer on dated paths."""
    made = dated.crm.properties.create(
        "bookings",
        name="tallybook_id",
        label="Tallybook id",
        type="string",
        field_type="text",
        group_name="bookings_information",
        has_unique_value=True,
    )
    assert made.has_unique_value
    assert any(one.name == "tallybook_id" for one in dated.crm.properties.list("bookings").results)
    assert [one.name for one in dated.crm.object_schemas.list().results] == ["mock_exams", "bookings"]
    assert dated.account.get().portal_id == 8_123_456
    assert dated.account.get_daily_private_apps_usage().results[0].usage_limit == 625_000


def test_the_models_of_the_dated_client_accept_the_answers_when_they_validate(portal):
    """The client only fills its models; validated, they take lists, histories, batches and searches."""
    contacts = "/crm/objects/2026-09/contacts"
    query = {"properties": "email", "propertiesWithHistory": "email", "limit": 3}
    rows = [{"id": "v@x.io", "idProperty": "email", "properties": {"email": "v@x.io"}}]
    read = {"inputs": [{"id": one} for one in portal.ids(limit=2)], "properties": ["email"]}
    search = {"limit": 2, "properties": ["email"]}
    for model, answer in (
        (
            models.CollectionResponseSimplePublicObjectWithAssociationsForwardPaging,
            portal.http.get(contacts, params=query),
        ),
        (
            models.BatchResponseSimplePublicUpsertObject,
            portal.post(f"{contacts}/batch/upsert", {"inputs": rows}),
        ),
        (models.BatchResponseSimplePublicObject, portal.post(f"{contacts}/batch/read", read)),
        (models.CollectionResponseWithTotalSimplePublicObject, portal.post(f"{contacts}/search", search)),
        (models.ObjectSchema, portal.http.get("/crm-object-schemas/2026-09/schemas/bookings")),
        (PortalInformationResponse, portal.http.get("/account-info/2026-09/details")),
    ):
        assert model.model_validate(answer.json(), strict=False)


def test_both_clients_know_a_429_when_they_see_one(serve):
    """Under `strict` the eleventh call within a second makes each client raise its own error."""
    portal = serve(limits="strict", limit_calls=None, contacts=1)
    legacy = LegacyClient(access_token="one-app", host=portal.url)
    with pytest.raises(ApiException) as refused:
        _often(legacy.crm.contacts.basic_api.get_page)
    assert refused.value.status == 429
    dated = HubSpot(access_token="another", base_url=portal.url, max_retries=0)
    with pytest.raises(RateLimitError):
        _often(dated.crm.objects.contacts.list)
    dated.close()


def _often(call):
    for _ in range(30):
        call()
