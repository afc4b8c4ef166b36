"""A job runs once at a time, however many processes are told to run it."""

import asyncio

import pytest

from tallybook.domain.errors import TallybookError
from tallybook.jobs import lease
from tallybook.jobs.activate_exams import activate_exams
from tallybook.jobs.lease import JobResult, JobRunningError, report, under_lease


async def state_of(owner, job):
    cursor = await owner.execute(
        "select lease_token, finished_at is not null, counts, last_error"
        " from tallybook.job_runs where job = %s",
        (job,),
    )
    return await cursor.fetchone()


async def test_of_ten_runs_at_once_one_works(db, owner):
    """The others say that it runs already; afterwards it can run again."""
    worked = []

    async def work():
        worked.append(1)
        await asyncio.sleep(0.2)
        return JobResult({"n": 1})

    reports = await asyncio.gather(*(report(db, "job", work) for _ in range(10)))
    assert len(worked) == 1
    assert sorted(each["done"] for each in reports) == [False] * 9 + [True]
    assert [each["counts"] for each in reports if not each["done"]] == [{"already_running": 1}] * 9
    assert await state_of(owner, "job") == (None, True, {"n": 1}, None)
    assert (await report(db, "job", work))["done"]


async def test_a_failed_run_gives_the_lease_back_and_says_which_error(db, owner):
    """Only its kind is kept: a text may name a person."""

    async def fail():
        raise ValueError("ann@example.com")

    with pytest.raises(ValueError, match="ann"):
        await under_lease(db, "job", fail)
    assert await state_of(owner, "job") == (None, True, {}, "ValueError")


async def test_the_lease_of_a_killed_process_ends_by_itself(db, owner):
    """As long as it holds nobody works; then anybody may."""

    async def work():
        return JobResult()

    await owner.execute(
        "insert into tallybook.job_runs (job, lease_token, leased_until)"
        " values ('job', gen_random_uuid(), now() + interval '1 hour')"
    )
    with pytest.raises(JobRunningError):
        await under_lease(db, "job", work)
    await owner.execute("update tallybook.job_runs set leased_until = now()")
    assert (await under_lease(db, "job", work)).done


async def test_a_run_that_lost_its_lease_is_stopped(db, owner, monkeypatch):
    """When somebody else has taken over, going on would be twice at once; their lease stays."""
    monkeypatch.setattr(lease, "_RENEW_EVERY_S", 0.02)
    stopped = asyncio.Event()

    async def work():
        try:
            await owner.execute("update tallybook.job_runs set lease_token = gen_random_uuid()")
            await asyncio.sleep(60)
        finally:
            stopped.set()

    with pytest.raises(TallybookError, match="lease was lost"):
        await under_lease(db, "job", work)
    assert stopped.is_set()
    assert (await state_of(owner, "job"))[0] is not None


async def test_who_asked_for_a_run_that_lost_its_lease_hears_that_it_is_not_done(db, owner, monkeypatch):
    """No error: what it had done stays, and the next run goes on."""
    monkeypatch.setattr(lease, "_RENEW_EVERY_S", 0.02)

    async def work():
        await owner.execute("update tallybook.job_runs set lease_token = gen_random_uuid()")
        await asyncio.sleep(60)

    told = await report(db, "job", work)
    assert (told["counts"], told["done"]) == ({"lease_lost": 1}, False)


async def test_a_long_run_keeps_its_lease(db, owner, monkeypatch):
    """The lease is renewed while the work goes on."""
    monkeypatch.setattr(lease, "_RENEW_EVERY_S", 0.02)
    monkeypatch.setattr(lease, "_LEASE_S", 0.2)

    async def work():
        cursor = await owner.execute("select leased_until from tallybook.job_runs")
        (first,) = await cursor.fetchone()
        while True:
            cursor = await owner.execute("select leased_until from tallybook.job_runs")
            if (await cursor.fetchone())[0] > first:
                return JobResult()

    assert (await under_lease(db, "job", work)).done


async def test_opened_sessions_are_recorded_once_and_noted_for_hubspot(db, owner):
    """250 sessions whose minute has passed become active in three transactions; others stay."""
    from support.factories import make_mock_exam

    exam = await make_mock_exam(db)
    await owner.execute(
        "insert into tallybook.mock_exams (mock_type, exam_on, start_time, end_time, time_zone, starts_at,"
        " ends_at, location, capacity, activation, opens_at)"
        " select mock_type, exam_on, start_time, end_time, time_zone, starts_at, ends_at, location, capacity,"
        " 'scheduled', case when n <= 250 then now() else starts_at end"
        " from tallybook.mock_exams, generate_series(1, 253) n where id = %s",
        (exam.id,),
    )
    assert (await activate_exams(db, max_s=30)).counts == {"opened": 250}
    assert (await activate_exams(db, max_s=30)).counts == {"opened": 0}
    cursor = await owner.execute(
        "select (select count(*) from tallybook.outbox where object_type = 'mock_exam'),"
        " (select count(*) from tallybook.audit_log where action = 'mock_exam.opened'),"
        " (select count(*) from tallybook.mock_exams where activation = 'scheduled')"
    )
    assert await cursor.fetchone() == (250, 250, 3)
