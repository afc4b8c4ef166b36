"""What holds for every request, over a real socket."""

import asyncio
from contextlib import asynccontextmanager
from datetime import date

import msgspec
import pytest

from tallybook.api.callers import Access
from tallybook.api.reading import Shape
from tallybook.api.replies import Reply, success, success_of
from tallybook.domain import errors

LIMIT = 64 * 1024


class Order(Shape, frozen=True, kw_only=True):
    """What the tests send."""

    superfluous = frozenset(("exam_date",))
    multiline = frozenset(("reason",))

    mock_exam_id: str
    on: date | None = None
    count: int = 1
    reason: str | None = None


class Page(Shape, frozen=True, kw_only=True):
    """What the tests ask."""

    page: int = 1
    full: bool = False


async def echo(_services, call):
    return success_of(call.body if call.body is not None else call.query)


def raises(error):
    async def handler(_services, _call):
        raise error

    return handler


def error_of(answer):
    assert answer.json()["success"] is False
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return answer.json()["error"]


async def test_a_well_formed_request_id_is_kept_and_another_is_replaced(serve, route):
    """A client can follow its own id; it cannot write into our log."""
    served = await serve([route()])
    kept = await served.http.post("/thing", headers={"x-request-id": "abc-1.2_3"})
    assert kept.headers["x-request-id"] == "abc-1.2_3"
    for bad in ("", "a b", "x" * 65, 'a"b', "-a"):
        made = (await served.http.post("/thing", headers={"x-request-id": bad})).headers["x-request-id"]
        assert made != bad
        assert len(made) == 24
    assert served.log("request")[0]["request_id"] == "abc-1.2_3"


async def test_an_unknown_path_is_404_and_a_known_one_405_with_allow(serve, route):
    """Both are envelopes; 405 says what would work."""
    served = await serve([route(method="GET", path="/a"), route(method="POST", path="/a/{booking}/b")])
    missing = await served.http.get("/nowhere")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "NOT_FOUND")
    for path, allow in (("/a", "GET, HEAD, OPTIONS"), ("/a/1/b", "OPTIONS, POST")):
        wrong = await served.http.put(path)
        assert (wrong.status_code, error_of(wrong)["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert wrong.headers["allow"] == allow


async def test_head_is_get_without_a_body_and_options_tells_the_methods(serve, route):
    """Without pair mode OPTIONS says nothing about other origins."""
    served = await serve([route(method="GET", path="/a")], cors_origins=("https://old.example",))
    head = await served.http.head("/a")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "28")
    options = await served.http.options("/a", headers={"origin": "https://old.example"})
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "access-control-allow-origin" not in options.headers
    assert (await served.http.options("/nowhere")).status_code == 404


async def test_only_the_named_origins_may_read_and_only_in_pair_mode(serve, route):
    """The old front end lives elsewhere; nobody else is let in."""
    served = await serve([route()], pair_mode=True, cors_origins=("https://old.example/",))
    preflight = {"origin": "https://old.example", "access-control-request-method": "POST"}
    asked = await served.http.options("/thing", headers=preflight)
    assert asked.headers["access-control-allow-origin"] == "https://old.example"
    assert "Idempotency-Key" in asked.headers["access-control-allow-headers"]
    assert "POST" in asked.headers["access-control-allow-methods"]
    stranger = await served.http.post("/thing", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    assert stranger.headers["vary"] == "Origin"


async def test_an_id_may_hold_an_encoded_slash_but_no_control_character(serve, route):
    """Ids come decoded; NUL, line breaks, broken UTF-8 and 10 kB are refused with the name of the field."""

    async def show(_services, call):
        return success_of(call.params)

    served = await serve([route(show, method="GET", path="/b/{booking}")])
    good = await served.http.get("/b/CS%2FSJ-159%27-March%201%2C%202026")
    assert good.json()["data"] == {"booking": "CS/SJ-159'-March 1, 2026"}
    for bad in ("a%00b", "a%0Ab", "%FF", "%C2%85", "x" * 201, "y" * 10_000):
        refused = await served.http.get(f"/b/{bad}")
        assert refused.status_code == 400, bad
        assert error_of(refused)["details"]["field"] == "booking"


@pytest.mark.parametrize(
    ("sent", "field", "problem"),
    [
        (b"{", "body", "is not well-formed JSON in UTF-8"),
        (b"\xff\xfe", "body", "is not well-formed JSON in UTF-8"),
        (b"[" * 30_000, "body", "is not well-formed JSON in UTF-8"),
        (b'{"mock_exam_id":"1"} x', "body", "is not well-formed JSON in UTF-8"),
        (b"[]", "body", "must be an object, not a list"),
        (b"null", "body", "must be an object, not null"),
        (b"", "mock_exam_id", "is required"),
        (b"{}", "mock_exam_id", "is required"),
        (b'{"mock_exam_id":1}', "mock_exam_id", "must be text, not a whole number"),
        (b'{"mock_exam_id":"1","count":"2"}', "count", "must be a whole number, not text"),
        (b'{"mock_exam_id":"1","count":null}', "count", "must be a whole number, not null"),
        (b'{"mock_exam_id":"1","colour":"red"}', "colour", "is not a field of this request"),
        (b'{"mock_exam_id":"1","on":"2026-02-30"}', "on", "must be a date that exists, written YYYY-MM-DD"),
        (b'{"mock_exam_id":"a\\u0000b"}', "mock_exam_id", "must not contain control characters"),
        (b'{"mock_exam_id":"a\\nb"}', "mock_exam_id", "must not contain control characters"),
        ('{"mock_exam_id":"a\x85b"}'.encode(), "mock_exam_id", "must not contain control characters"),
        (b'{"mock_exam_id":"a\x7fb"}', "mock_exam_id", "must not contain control characters"),
        (b'{"mock_exam_id":"1","reason":"a\\u0007"}', "reason", "must not contain control characters"),
    ],
)
async def test_a_bad_body_is_refused_with_field_and_problem(serve, route, sent, field, problem):
    """The client learns which field and what is wrong with it, never more."""
    served = await serve([route(echo, body=Order)])
    answer = await served.http.post("/thing", content=sent, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "VALIDATION_ERROR"
    assert error_of(answer)["details"] == {"field": field, "problem": problem}


async def test_old_names_are_read_and_superfluous_fields_dropped(serve, route):
    """camelCase works, today's name wins, and lines are allowed where a person writes them."""
    served = await serve([route(echo, body=Order)])
    old = {"mockExamId": "9", "examDate": "2026-01-01", "exam_date": 5, "reason": "a\nb"}
    answer = await served.http.post("/thing", json=old)
    assert answer.json()["data"] == {"mock_exam_id": "9", "on": None, "count": 1, "reason": "a\nb"}
    both = await served.http.post("/thing", json={"mockExamId": "9", "mock_exam_id": "10"})
    assert both.json()["data"]["mock_exam_id"] == "10"


async def test_a_query_is_read_like_a_body(serve, route):
    """Types, names and repeats are checked; an empty value counts as not given."""
    served = await serve([route(echo, method="GET", query=Page)])
    good = await served.http.get("/thing?page=3&full=true")
    assert good.json()["data"] == {"page": 3, "full": True}
    assert (await served.http.get("/thing?page=")).json()["data"]["page"] == 1
    for query, field in (
        ("page=x", "page"),
        ("colour=red", "colour"),
        ("page=1&page=2", "page"),
        ("page=%FF", "query"),
        ("&".join(f"a{n}=1" for n in range(50)), "query"),
    ):
        refused = await served.http.get(f"/thing?{query}")
        assert (refused.status_code, error_of(refused)["details"]["field"]) == (400, field)
    assert (await (await serve([route()])).http.post("/thing?page=1")).status_code == 400


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('Application/JSON;charset="UTF-8"', 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
async def test_a_body_has_to_be_json(serve, route, media_type, status):
    """A form of another site cannot be posted here."""
    served = await serve([route(echo, body=Order)])
    answer = await served.http.post(
        "/thing", content=b'{"mock_exam_id":"1"}', headers={"content-type": media_type}
    )
    assert answer.status_code == status


async def test_a_body_of_64_kb_passes_and_one_byte_more_does_not(serve, route):
    """The limit is exact for an announced length."""
    served = await serve([route(echo, body=Order)])
    json = {"content-type": "application/json"}
    start = b'{"mock_exam_id":"1"}'
    fits = await served.http.post("/thing", content=start.ljust(LIMIT), headers=json)
    assert fits.status_code == 200
    large = await served.http.post("/thing", content=start.ljust(LIMIT + 1), headers=json)
    assert (large.status_code, error_of(large)["code"]) == (413, "PAYLOAD_TOO_LARGE")
    # A reset would take the answer from a client that is still sending.
    assert "connection" not in large.headers


async def test_a_chunked_body_without_end_is_cut_off_at_the_limit(serve, route):
    """The answer comes while the client would go on sending for ever."""
    served = await serve([route(echo, body=Order)])
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(
        b"POST /thing HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    for _ in range(9):
        writer.write(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
    await writer.drain()
    try:
        assert b"413" in await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    finally:
        writer.close()


async def test_a_client_that_hangs_up_is_logged_and_not_answered(serve, route):
    """Status 499 in the log, no handler, no error."""
    served = await serve([route(echo, body=Order)])
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(
        b"POST /thing HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    for _ in range(200):
        if served.log("request"):
            break
        await asyncio.sleep(0.01)
    assert [line["status"] for line in served.log()] == [499]


async def test_a_bug_is_500_and_shows_nothing_of_itself(serve, route):
    """The log names the place and is scrubbed; the answer says nothing."""
    broken = RuntimeError(
        "duplicate Key (email)=(ada@example.org) for tb_abc_secretsecretsecret at Bearer xyz"
    )
    served = await serve([route(raises(broken))])
    answer = await served.http.post("/thing")
    assert (answer.status_code, error_of(answer)["code"]) == (500, "INTERNAL_ERROR")
    assert "duplicate" not in answer.text
    (line,) = served.log("request_failed")
    assert line["error"] == "RuntimeError"
    assert any("test_gate.py" in frame for frame in line["where"])
    assert line["request_id"] == answer.headers["x-request-id"]
    logged = served.stream.getvalue()
    for secret in (b"ada@", b"secretsecret", b"xyz"):
        assert secret not in logged
    assert served.log("request")[0]["status"] == 500


async def test_the_log_names_the_template_and_the_contact_and_no_person(serve, route):
    """Neither path, query, body nor token reaches the log."""

    async def found(_services, _call):
        return success(b"1", lookup="hit")

    path = "/contacts/{booking}"
    served = await serve([route(found, path=path, access=Access.STUDENT, body=Order, query=Page)])
    await served.http.post(
        "/contacts/email:ada@example.org?page=2",
        json={"mock_exam_id": "grace@example.org"},
        headers=served.as_student(),
    )
    (line,) = served.log()
    assert line["event"] == "cache_hit"
    assert (line["route"], line["method"], line["status"]) == (path, "POST", 200)
    assert line["caller"] == "student"
    assert line["contact"] == "00000000-0000-0000-0000-000000000007"
    assert line["ms"] > 0
    for person in (b"example.org", b"grace", b"eyJ", b"page"):
        assert person not in served.stream.getvalue()


async def test_a_replayed_answer_says_so(serve, route):
    """The header stands exactly on replays."""

    async def replayed(_services, _call):
        return success(b'{"a": 1}', status=201, replayed=True)

    served = await serve([route(replayed), route(path="/first")])
    again = await served.http.post("/thing")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert again.json() == {"success": True, "data": {"a": 1}}
    assert "idempotency-replayed" not in (await served.http.post("/first")).headers


async def test_an_answer_that_may_come_later_says_when(serve, route):
    """Retry-After is a header, the reason an envelope."""
    served = await serve([route(raises(errors.CrmBusy(retry_after_s=3)))])
    answer = await served.http.post("/thing")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert error_of(answer)["code"] == "CRM_BUSY"
    assert served.log("request")[0]["code"] == "CRM_BUSY"


async def test_no_answer_may_be_kept_by_anybody_in_between(serve, route):
    """Credits of a person do not belong into a cache."""
    served = await serve([route()])
    assert (await served.http.post("/thing")).headers["cache-control"] == "no-store"


async def test_requests_are_counted_by_route_status_and_lookup(serve, route):
    """Prometheus sees hits, misses and their rate, never a path."""
    lookups = iter(("hit", "hit", "hit", "miss", None))

    async def looked_up(_services, _call):
        return Reply(200, b"{}", lookup=next(lookups))

    served = await serve([route(looked_up), *operation_routes()], pool_figures=lambda: {"idle": 4})
    for _ in range(5):
        await served.http.post("/thing")
    await served.http.get("/secret/ada@example.org")
    text = (await served.http.get("/metrics")).text
    assert 'tallybook_requests_total{method="POST",route="/thing",status="200"} 5.0' in text
    assert 'tallybook_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'tallybook_request_seconds_count{lookup="hit",method="POST",route="/thing"} 3.0' in text
    assert 'tallybook_request_seconds_count{lookup="miss",method="POST",route="/thing"} 1.0' in text
    assert 'tallybook_request_seconds_count{lookup="none",method="POST",route="/thing"} 1.0' in text
    assert "tallybook_lookup_hits_total 3.0" in text
    assert "tallybook_lookup_misses_total 1.0" in text
    assert "tallybook_lookup_hit_rate 0.75" in text
    assert "tallybook_requests_in_flight 1.0" in text
    assert 'tallybook_pool_connections{state="idle"} 4.0' in text
    assert "ada" not in text


async def test_a_stopping_server_finishes_what_it_promised(serve, route):
    """Work behind an answer is awaited before the lifespan closes."""
    done = []

    async def later():
        # Longer than a stopping server needs to notice that it should.
        await asyncio.sleep(0.3)
        done.append("mailed")

    async def promise(services, _call):
        services.background.start(later(), name="later")
        return success_of(None, status=202)

    @asynccontextmanager
    async def lifespan():
        yield
        done.append("closed")

    served = await serve([route(promise)], lifespan=lifespan)
    assert (await served.http.post("/thing")).status_code == 202
    await served.stop()
    assert done == ["mailed", "closed"]


async def test_a_failure_behind_an_answer_is_logged(serve, route):
    """Nobody waits for it, so the log has to know."""

    async def fail():
        raise ValueError("no mail to ada@example.org")

    async def promise(services, _call):
        services.background.start(fail(), name="later")
        return success_of(None)

    served = await serve([route(promise)])
    await served.http.post("/thing")
    await served.stop()
    (line,) = served.log("background_failed")
    assert (line["work"], line["error"]) == ("later", "ValueError")
    assert "example.org" not in msgspec.json.encode(line).decode()


def operation_routes():
    from tallybook.api.routes import ROUTES

    return [each for each in ROUTES if each.tag == "operations"]
