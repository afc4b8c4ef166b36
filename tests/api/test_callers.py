"""Who gets in, and who does not."""

import asyncio
import base64
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import jwt
import pytest
from jwt.warnings import InsecureKeyLengthWarning

from tallybook.api.addresses import client_address, is_loopback
from tallybook.api.callers import Access
from tallybook.api.keys import ApiKeys
from tallybook.api.replies import success_of
from tallybook.api.secrets import API_KEYS, STUDENT_TOKENS, derive_key, hash_api_secret
from tallybook.api.tokens import StudentTokens
from tallybook.domain.errors import DatabaseUnavailable, Unauthenticated

PERSON = {"contact_id": UUID(int=7), "epoch": 3, "hubspot_id": "101"}
KEY = "tb_abc_0123456789abcdef"


@dataclass
class StoredKey:
    secret_hash: bytes
    scopes: tuple[str, ...] = ("students",)
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class KeyStore:
    """What the database would hold; it counts questions and can be down."""

    def __init__(self, secret):
        self.keys = {"abc": StoredKey(hash_api_secret(secret, key_id="abc", secret="0123456789abcdef"))}
        self.asked = 0
        self.down = False

    async def find(self, key_id):
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise DatabaseUnavailable
        return self.keys.get(key_id)


@pytest.fixture
def store(secret):
    return KeyStore(secret)


@pytest.fixture
def keys(secret, store, clock):
    return ApiKeys(secret, previous=None, find_key=store.find, clock=clock)


async def show_caller(_services, call):
    caller = call.caller
    return success_of({"kind": caller.kind, "credential": caller.credential, "limit": caller.limit_per_min})


def test_a_token_carries_the_contact_and_its_epoch(secret, clock):
    """What was issued is what is verified; the limit counts per person."""
    tokens = StudentTokens(secret, previous=None, clock=clock)
    token, ends_at = tokens.issue(**PERSON)
    caller = tokens.verify(token)
    assert (caller.contact_id, caller.epoch, caller.hubspot_id) == (UUID(int=7), 3, "101")
    assert (caller.limit_key, caller.limit_per_min) == (f"student:{UUID(int=7)}", 120)
    assert ends_at - clock.now == timedelta(hours=12)


def test_a_token_ends_after_twelve_hours_also_when_remembered(secret, clock):
    """A verified token is remembered, yet never beyond its end."""
    tokens = StudentTokens(secret, previous=None, clock=clock)
    token, _ = tokens.issue(**PERSON)
    clock.advance(hours=12, seconds=-1)
    tokens.verify(token)
    clock.advance(seconds=1)
    with pytest.raises(Unauthenticated, match="session has ended"):
        tokens.verify(token)


def forged(secret, clock, *, key=None, algorithm="HS256", drop=(), **changes):
    now = int(clock.now.timestamp())
    claims = {
        "sub": str(UUID(int=7)),
        "epoch": 1,
        "hid": None,
        "aud": "tallybook-student",
        "iss": "tallybook",
        "iat": now,
        "exp": now + 60,
    } | changes
    claims = {name: value for name, value in claims.items() if name not in drop}
    signing = key if key is not None else derive_key(secret, purpose=STUDENT_TOKENS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)
        return jwt.encode(claims, "" if algorithm == "none" else signing, algorithm=algorithm)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "none"},
        {"algorithm": "HS384"},
        {"key": b"x" * 32},
        {"key": "derived for something else"},
        {"aud": "tallybook-staff"},
        {"iss": "somebody"},
        {"sub": "1599005"},
        {"epoch": "1"},
        {"hid": 5},
        {"exp": 0},
        {"drop": ("exp",)},
        {"drop": ("aud",)},
        {"drop": ("epoch",)},
        {"drop": ("sub",)},
    ],
    ids=str,
)
def test_a_token_that_is_not_ours_is_refused(secret, clock, change):
    """Another key, algorithm, audience, issuer or shape opens nothing; the unchanged one does."""
    if change.get("key") == "derived for something else":
        change = {"key": derive_key(secret, purpose=API_KEYS)}
    tokens = StudentTokens(secret, previous=None, clock=clock)
    assert tokens.verify(forged(secret, clock)).epoch == 1
    with pytest.raises(Unauthenticated):
        tokens.verify(forged(secret, clock, **change))


@pytest.mark.parametrize("garbage", ["", "x", "a.b.c", "é" * 50, "x" * 5000, "tb_abc_0123456789abcdef"])
def test_garbage_is_refused(secret, clock, garbage):
    """Nothing that is no token gets further than the door."""
    with pytest.raises(Unauthenticated):
        StudentTokens(secret, previous=None, clock=clock).verify(garbage)


def test_a_rotated_secret_keeps_sessions_alive(secret, clock):
    """Tokens of the previous secret are good, new ones are signed with the new secret."""
    token, _ = StudentTokens(secret, previous=None, clock=clock).issue(**PERSON)
    rotated = StudentTokens("the new secret", previous=secret, clock=clock)
    assert rotated.verify(token).contact_id == UUID(int=7)
    fresh, _ = rotated.issue(**PERSON)
    with pytest.raises(Unauthenticated):
        StudentTokens(secret, previous=None, clock=clock).verify(fresh)


async def test_a_verified_key_is_asked_once_a_minute(keys, store, clock):
    """Also when many requests show it at once."""
    callers = await asyncio.gather(*(keys.verify(KEY) for _ in range(50)))
    assert {caller.credential for caller in callers} == {"key:abc"}
    assert callers[0].limit_key is None
    clock.advance(seconds=59)
    await keys.verify(KEY)
    assert store.asked == 1
    clock.advance(seconds=1)
    await keys.verify(KEY)
    assert store.asked == 2


async def test_a_revoked_key_stops_within_a_minute(keys, store, clock):
    """Sixty seconds is the promise."""
    await keys.verify(KEY)
    store.keys["abc"].revoked_at = clock.now
    clock.advance(seconds=60)
    with pytest.raises(Unauthenticated):
        await keys.verify(KEY)


async def test_a_key_ends_at_its_expiry_also_when_remembered(keys, store, clock):
    """Being remembered does not outlive the key."""
    store.keys["abc"].expires_at = clock.now + timedelta(seconds=30)
    await keys.verify(KEY)
    clock.advance(seconds=30)
    with pytest.raises(Unauthenticated):
        await keys.verify(KEY)


async def test_a_known_key_outlives_the_database_by_ten_minutes(keys, store, clock):
    """What needs no database goes on; a key never seen before does not get in."""
    await keys.verify(KEY)
    store.down = True
    clock.advance(minutes=10, seconds=-1)
    assert (await keys.verify(KEY)).credential == "key:abc"
    with pytest.raises(DatabaseUnavailable):
        await keys.verify("tb_other_0123456789abcdef")
    clock.advance(seconds=1)
    with pytest.raises(DatabaseUnavailable):
        await keys.verify(KEY)


@pytest.mark.parametrize(
    "wrong",
    [
        "tb_abc_0123456789abcdeX",
        "tb_zzz_0123456789abcdef",
        "tb_abc_",
        "tb__0123456789abcdef",
        "tb_abc",
        "tb_",
    ],
)
async def test_a_wrong_key_is_refused(keys, wrong):
    """Wrong secret, unknown id, half a key: the same answer."""
    with pytest.raises(Unauthenticated):
        await keys.verify(wrong)


async def test_a_hash_of_one_key_does_not_open_another(keys, store, secret):
    """The stored hash is bound to the id, so rows cannot be swapped."""
    store.keys["zzz"] = store.keys["abc"]
    with pytest.raises(Unauthenticated):
        await keys.verify("tb_zzz_0123456789abcdef")


async def test_a_student_address_needs_a_token_or_a_key_with_the_scope(serve, route, store):
    """A key for credits alone is known and yet not allowed."""
    served = await serve([route(show_caller, access=Access.STUDENT)], find_key=store.find)
    ask = served.http.post
    assert (await ask("/thing")).status_code == 401
    assert "Bearer" in (await ask("/thing")).headers["www-authenticate"]
    assert (await ask("/thing", headers={"authorization": "Basic x"})).status_code == 401
    student = await ask("/thing", headers=served.as_student())
    assert student.json()["data"]["kind"] == "student"
    key = {"authorization": f"bearer {KEY}"}
    assert (await ask("/thing", headers=key)).json()["data"] == {
        "kind": "application",
        "credential": "key:abc",
        "limit": None,
    }
    store.keys["abc"].scopes = ("credits",)
    served.clock.advance(seconds=60)
    refused = await ask("/thing", headers=key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")


async def test_pair_mode_lets_unsigned_callers_in_and_still_refuses_bad_tokens(serve, route):
    """A wrong token is a failed sign-in, not an absent one."""
    served = await serve([route(show_caller, access=Access.STUDENT)], pair_mode=True)
    unsigned = await served.http.post("/thing")
    assert unsigned.json()["data"] == {"kind": "pair", "credential": "pair:127.0.0.1", "limit": 600}
    bad = await served.http.post("/thing", headers={"authorization": "Bearer x"})
    assert bad.status_code == 401


async def test_a_public_address_is_limited_per_address_unless_a_credential_is_good(serve, route):
    """A bad credential changes nothing: public stays public."""
    served = await serve([route(show_caller)])
    for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic x"}):
        caller = (await served.http.post("/thing", headers=headers)).json()["data"]
        assert (caller["kind"], caller["limit"]) == ("public", 600)
    caller = (await served.http.post("/thing", headers=served.as_student())).json()["data"]
    assert (caller["kind"], caller["limit"]) == ("student", 120)


async def test_cron_is_closed_until_its_secret_is_set(serve, route):
    """`Bearer `, `Bearer None` and `Bearer undefined` open nothing."""
    for secret in (None, ""):
        served = await serve([route(access=Access.CRON)], cron_secret=secret)
        for given in ("Bearer", "Bearer None", "Bearer undefined", "Bearer null"):
            answer = await served.http.post("/thing", headers={"authorization": given})
            assert answer.status_code == 401
        assert (await served.http.post("/thing", headers={"x-vercel-cron": "true"})).status_code == 401
    served = await serve([route(access=Access.CRON)], cron_secret="s3cret")
    assert (await served.http.post("/thing", headers={"authorization": "Bearer s3cret"})).status_code == 200
    assert (await served.http.post("/thing", headers={"authorization": "Bearer s3cre"})).status_code == 401
    assert (await served.http.post("/thing", headers=served.as_student())).status_code == 401


async def test_figures_are_for_this_machine_or_the_token(serve, route):
    """A proxy on this machine does not make the world local."""
    served = await serve([route(access=Access.METRICS)], metrics_token="m3trics")
    assert (await served.http.post("/thing")).status_code == 200
    far = {"x-forwarded-for": "203.0.113.9"}
    assert (await served.http.post("/thing", headers=far)).status_code == 401
    signed = far | {"authorization": "Bearer m3trics"}
    assert (await served.http.post("/thing", headers=signed)).status_code == 200


async def test_docs_are_for_staff_unless_public(serve, route):
    """Basic sign-in with a local account; the browser is asked for it."""

    async def verify(email, password, address):
        return (email, password, address) == ("ada@example.org", "pass:word", "127.0.0.1")

    served = await serve([route(access=Access.DOCS)], verify_staff=verify)
    closed = await served.http.post("/thing")
    assert closed.status_code == 401
    assert closed.headers["www-authenticate"].startswith("Basic")
    assert (await served.http.post("/thing", auth=("ada@example.org", "pass:word"))).status_code == 200
    for bad in ("ada@example.org:wrong", "ada@example.org", ":", "é"):
        basic = base64.b64encode(bad.encode("latin-1")).decode()
        assert (
            await served.http.post("/thing", headers={"authorization": f"Basic {basic}"})
        ).status_code == 401
    assert (await served.http.post("/thing", headers={"authorization": "Basic !!"})).status_code == 401
    nobody = await serve([route(access=Access.DOCS)])
    assert (await nobody.http.post("/thing", auth=("ada@example.org", "pass:word"))).status_code == 401
    public = await serve([route(access=Access.DOCS)], public_docs=True)
    assert (await public.http.post("/thing")).status_code == 200


def scope(client, *forwarded):
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return {"client": (client, 1) if client else None, "headers": headers}


@pytest.mark.parametrize(
    ("proxies", "client", "forwarded", "address"),
    [
        (0, "203.0.113.1", ("198.51.100.7",), "203.0.113.1"),
        (1, "10.0.0.1", ("198.51.100.7",), "198.51.100.7"),
        (1, "10.0.0.1", ("1.1.1.1, 198.51.100.7",), "198.51.100.7"),
        (1, "10.0.0.1", ("1.1.1.1", "198.51.100.7"), "198.51.100.7"),
        (2, "10.0.0.1", ("1.1.1.1, 198.51.100.7, 10.0.0.2",), "198.51.100.7"),
        (2, "10.0.0.1", ("198.51.100.7",), "198.51.100.7"),
        (1, "10.0.0.1", (), "10.0.0.1"),
        (1, "10.0.0.1", ("nonsense",), "10.0.0.1"),
        (1, "10.0.0.1", ("198.51.100.7:4711",), "198.51.100.7"),
        (1, "10.0.0.1", ("[2001:db8:1:2:3:4:5:6]:4711",), "2001:db8:1:2::/64"),
        (0, "2001:db8:1:2:ffff::1", (), "2001:db8:1:2::/64"),
        (0, "::ffff:203.0.113.1", (), "203.0.113.1"),
        (0, None, (), "unknown"),
    ],
)
def test_an_address_is_what_the_last_trusted_hop_saw(proxies, client, forwarded, address):
    """A client cannot choose its address by writing headers, nor by walking through its /64."""
    assert client_address(scope(client, *forwarded), trusted_proxies=proxies) == address


def test_loopback_is_this_machine_alone():
    """Every loopback spelling counts, a forwarded request never."""
    assert all(is_loopback(scope(name)) for name in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(scope(name)) for name in ("10.0.0.1", "testclient", None, "::"))
    assert not is_loopback(scope("127.0.0.1", "127.0.0.1"))
