"""Who may do what, tried as each role."""

import psycopg
import pytest
from psycopg import sql

from support.factories import book, make_contact, make_mock_exam
from tallybook.postgres.pool import Database

VIEWS = {"hubspot_contact_credits", "hubspot_mock_exams", "hubspot_bookings"}
OLD_NAMES = {
    "create_booking_atomic",
    "cancel_booking_atomic",
    "check_idempotency_key",
    "get_contact_credits",
    "get_booking",
    "grant_credits",
}
DENIED = psycopg.errors.InsufficientPrivilege
FORBIDDEN_TO_THE_APPLICATION = [
    "create table tallybook.mine (id integer)",
    "alter table tallybook.contacts add column mine integer",
    "drop table tallybook.outbox",
    "drop function tallybook.post_entry() cascade",
    "alter table tallybook.credit_entries disable trigger all",
    "truncate tallybook.outbox",
    "truncate tallybook.credit_entries cascade",
    "update tallybook.credit_entries set delta = 9",
    "delete from tallybook.credit_entries",
    "update tallybook.audit_log set actor = 'nobody'",
    "delete from tallybook.audit_log",
    "update tallybook.credit_balances set balance = 9",
    "update tallybook.credit_balances set version = 9",
    "delete from tallybook.credit_balances",
    "update tallybook.mock_exams set total_bookings = 0",
    "delete from tallybook.mock_exams",
    "delete from tallybook.bookings",
    "delete from tallybook.contacts",
    "update tallybook.schema_migrations set min_release = '0.0.0'",
    "select tallybook.secure()",
    "select tallybook.begin_migration('29991231000000', 'mine', '0.0.0')",
    "select tallybook.grant_credits('1', 'sj_credits', 1, 'me')",
    "set session_replication_role = replica",
]
OPENED_BY_HAND = [
    ("grant select on tallybook.contacts to anon", "role anon can select contacts"),
    ("grant select (email) on tallybook.contacts to authenticated", "role authenticated can select contacts"),
    ("grant truncate on tallybook.outbox to service_role", "role service_role can truncate outbox"),
    ("grant select on tallybook.hubspot_bookings to anon", "role anon can select hubspot_bookings"),
    ("grant insert on tallybook.bookings to public", "role anon can insert bookings"),
    ("grant usage on schema tallybook to authenticated", "role authenticated may use the schema"),
    ("alter table tallybook.contacts disable row level security", "table contacts has no row level security"),
    ("create table tallybook.mine (id integer)", "table mine has no row level security"),
    (
        "grant execute on function tallybook.find_contact(text) to public",
        "everybody may run function find_contact",
    ),
    (
        "grant execute on function tallybook.find_contact(text) to service_role",
        "role service_role may run function find_contact",
    ),
    (
        "create function tallybook.mine() returns integer language sql as 'select 1'",
        "everybody may run function mine",
    ),
    (
        "alter function tallybook.grant_credits(text, text, integer, text) reset search_path",
        "deciding function grant_credits runs as its owner without a fixed search path",
    ),
    (
        "grant update on tallybook.credit_entries to tallybook_app",
        "role tallybook_app may update credit_entries",
    ),
    ("grant delete on tallybook.audit_log to tallybook_app", "role tallybook_app may delete audit_log"),
    (
        "grant update on tallybook.credit_balances to tallybook_app",
        "role tallybook_app may change balance without what explains it",
    ),
    ("grant create on schema tallybook to tallybook_app", "role tallybook_app may create in the schema"),
    ("drop policy tallybook_app_all on tallybook.outbox", "role tallybook_app sees no rows of outbox"),
    ("revoke select on tallybook.bookings from tallybook_app", "role tallybook_app sees no rows of bookings"),
]


async def _all(connection, query, params=None):
    return await (await connection.execute(query, params)).fetchall()


async def _relations(owner):
    rows = await _all(
        owner,
        "select relname, relkind from pg_class where relnamespace = 'tallybook'::regnamespace"
        " and relkind in ('r', 'v', 'S')",
    )
    return [(name, kind.decode() if isinstance(kind, bytes) else kind) for name, kind in rows]


async def _calls(owner):
    """Each function of the schema with a call of nothing but nulls."""
    rows = await _all(
        owner,
        "select p.proname, p.pronargs, array(select format_type(t, null) from unnest(p.proargtypes) t)"
        " from pg_proc p where p.pronamespace = 'tallybook'::regnamespace"
        " and p.prorettype <> 'trigger'::regtype",
    )
    assert len(rows) > 50
    return [
        (name, sql.SQL(f"select tallybook.{name}({', '.join(f'null::{each}' for each in types)})"))
        for name, _, types in rows
    ]


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_strangers_can_do_nothing(owner, as_role, role):
    """No table, view, sequence or function of the schema answers anon or authenticated."""
    stranger = await as_role(role)
    for name, kind in await _relations(owner):
        query = f"select last_value from tallybook.{name}" if kind == "S" else f"table tallybook.{name}"
        with pytest.raises(DENIED):
            await stranger.execute(query)
    for _, call in await _calls(owner):
        with pytest.raises(DENIED):
            await stranger.execute(call)
    with pytest.raises(DENIED):
        await stranger.execute("create table tallybook.mine (id integer)")


async def test_service_role_reads_three_views_and_no_table(db, owner, as_role):
    """Of all relations, service_role sees the views with the old names, with their rows."""
    await book(db, await make_contact(db, credits={"sj_credits": 1}), await make_mock_exam(db))
    service = await as_role("service_role")
    for name, kind in await _relations(owner):
        if name in VIEWS:
            assert len(await _all(service, f"table tallybook.{name}")) == 1
            continue
        query = f"select last_value from tallybook.{name}" if kind == "S" else f"table tallybook.{name}"
        with pytest.raises(DENIED):
            await service.execute(query)
        if kind == "r":
            for write in (f"delete from tallybook.{name}", f"insert into tallybook.{name} default values"):
                with pytest.raises(DENIED):
                    await service.execute(write)


async def test_service_role_runs_the_old_names_only(owner, as_role):
    """A function without an old name is closed to service_role."""
    service = await as_role("service_role")
    ran = set()
    for name, call in await _calls(owner):
        try:
            await service.execute(call)
        except psycopg.errors.RaiseException:
            ran.add(name)
        except DENIED:
            continue
        else:
            ran.add(name)
    assert ran == OLD_NAMES


@pytest.mark.parametrize("filled", [True, False])
async def test_writing_to_a_view_says_what_to_use_instead(db, as_role, subtests, filled):
    """Old scripts that write are told where to go, also when their statement meets no row."""
    if filled:
        await book(db, await make_contact(db, credits={"sj_credits": 1}), await make_mock_exam(db))
    service = await as_role("service_role")
    writes = ("update {} set hubspot_id = '1'", "delete from {}", "insert into {} (hubspot_id) values ('1')")
    for statement in (write.format(f"tallybook.{view}") for view in VIEWS for write in writes):
        with subtests.test(statement):
            with pytest.raises(psycopg.errors.RaiseException) as caught:
                await service.execute(statement)
            assert caught.value.diag.message_primary == "read-only: use tallybook contact refresh or grant"


async def test_the_application_may_not(as_role, subtests):
    """No DDL, no rewriting of history, no number without what explains it."""
    application = await as_role("tallybook_app")
    for statement in FORBIDDEN_TO_THE_APPLICATION:
        with subtests.test(statement), pytest.raises(DENIED):
            await application.execute(statement)


async def test_the_application_sees_rows(db, owner, as_role):
    """Row level security with a policy for the application: what is there is seen, in every table."""
    await book(db, await make_contact(db, credits={"sj_credits": 1}), await make_mock_exam(db), key="k")
    application = await as_role("tallybook_app")
    for name, kind in await _relations(owner):
        if kind == "r":
            (seen,) = (await _all(application, f"select count(*) from tallybook.{name}"))[0]
            (there,) = (await _all(owner, f"select count(*) from tallybook.{name}"))[0]
            assert (name, seen) == (name, there)


async def test_the_application_pool_is_the_application(database_uri):
    """A pool given the owner's address acts as tallybook_app from its first statement on."""
    database = Database(database_uri)
    try:
        async with database.connection() as connection:
            assert await _all(connection, "select current_user, session_user") == [
                ("tallybook_app", "tallybook_owner")
            ]
    finally:
        await database.close()


async def test_every_table_has_row_level_security(owner):
    """A table added without it would be open to whoever is granted the schema by mistake."""
    rows = await _all(
        owner,
        "select relname from pg_class where relnamespace = 'tallybook'::regnamespace and relkind = 'r'"
        " and not relrowsecurity",
    )
    assert rows == []


async def test_what_is_opened_by_hand_is_found(owner, subtests):
    """The check behind `doctor` and each migration names what was opened, or closed to the application."""
    problems = "select problem from tallybook.security_problems()"
    assert await _all(owner, problems) == []
    for opened, words in OPENED_BY_HAND:
        with subtests.test(opened):
            async with owner.transaction(force_rollback=True):
                await owner.execute(opened)
                assert (words,) in await _all(owner, problems)


async def test_securing_again_closes_what_was_opened(owner):
    """The end of the next migration takes back rights that were given by hand."""
    await owner.execute("grant all on all tables in schema tallybook to anon")
    await owner.execute("grant execute on all functions in schema tallybook to public")
    await owner.execute("alter table tallybook.outbox disable row level security")
    await owner.execute("select tallybook.secure()")
    assert await _all(owner, "select problem from tallybook.security_problems()") == []
