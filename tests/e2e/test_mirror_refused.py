"""Work on the mirror that only the person who runs Tallybook can make possible again: 503 says how."""

from contextlib import asynccontextmanager

import pytest

from e2e.service import CRON_SECRET, data_of, refused
from tallybook.api.openapi import openapi_document
from tallybook.api.routes import ROUTES

CRON = {"authorization": f"Bearer {CRON_SECRET}"}
JOBS = ("sync-supabase", "warm-contact-credits-cache", "batch-sync-hubspot", "reconcile")


@pytest.fixture(scope="module")
async def service(start_service):
    return await start_service(contacts=3)


@asynccontextmanager
async def trouble(service, kind):
    """Gone again after the block."""
    if kind == "hold":
        await service.run("select tallybook.hold_pushing('restored', '{}')")
    else:
        await service.simulator.set(**({"token": "another one"} if kind == "token" else {"portal_id": 4711}))
    try:
        yield
    finally:
        await service.simulator.set(token=None, portal_id=8_123_456)
        await service.run("select tallybook.release_hold()")


@pytest.mark.parametrize(
    ("kind", "told", "detail"),
    [
        ("token", ("HS_PRIVATE_APP_TOKEN was refused", "tallybook doctor"), ("status", 401)),
        ("portal", ("the token opens portal 4711", "tallybook sync rebind"), ("other_portal_id", 4711)),
        ("hold", ("restored from a backup", "reconcile --after-restore"), ("hold", "restored")),
    ],
)
async def test_staff_and_schedulers_hear_what_to_do(service, staff, kind, told, detail):
    """Reconciling, reading a contact again and each job: CRM_UNAVAILABLE with a wait; all well afterwards."""
    await service.simulator.set(portal_id=8_123_456)
    data_of(await service.http.get("/api/admin/cron/batch-sync-hubspot", headers=CRON))
    requests = [
        ("POST", "/api/admin/sync/reconcile", {"headers": staff, "json": {"max_s": 5}}),
        ("DELETE", "/api/admin/cache/contact/1599000", {"headers": staff}),
        *(("GET", f"/api/admin/cron/{job}?max_s=5", {"headers": CRON}) for job in JOBS),
    ]
    async with trouble(service, kind):
        # A process that knew the portal a moment ago would trust it for a minute.
        await service.restart()
        for method, path, request in requests:
            answer = await service.http.request(method, path, **request)
            refused(answer, 503, "CRM_UNAVAILABLE")
            error = answer.json()["error"]
            assert told[0] in error["message"], path
            assert told[1] in error["details"]["hint"], path
            assert error["details"][detail[0]] == detail[1]
            assert int(answer.headers["retry-after"]) == 60
            assert "pat-of-the-tests" not in answer.text
    assert service.server.log("mirror_refused")
    await service.restart()
    for method, path, request in requests:
        data_of(await service.http.request(method, path, **request))


def test_the_document_tells_of_it():
    """At each address that works on the mirror."""
    paths = openapi_document(ROUTES)["paths"]
    operations = [
        paths["/api/admin/sync/reconcile"]["post"],
        paths["/api/admin/cache/contact/{student_id}"]["delete"],
        *(paths[f"/api/admin/cron/{job}"]["get"] for job in JOBS),
    ]
    for operation in operations:
        examples = operation["responses"]["503"]["content"]["application/json"]["examples"]
        assert {"CRM_BUSY", "CRM_UNAVAILABLE", "DATABASE_UNAVAILABLE"} <= set(examples)
