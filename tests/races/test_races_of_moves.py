"""Moves in all directions at once: seats stay right, and nobody meets a deadlock."""

import asyncio

import pytest

from races.crowd import at_once, booked, live_bookings, moving_by, tally
from races.guards import SORTED_EXAM_LOCKS
from support.factories import make_contacts, make_mock_exam, seats_taken


async def two_exams(wide, *, capacity, students):
    """Two exams with so many students in each: exams and (student, booking, goal) of everybody."""
    here, there = [await make_mock_exam(wide, days=days, capacity=capacity) for days in (7, 8)]
    crowd = await make_contacts(wide, 2 * students, credits={"sj_credits": 1})
    moves = []
    for number, each in enumerate(crowd):
        start, goal = (here, there) if number % 2 else (there, here)
        moves.append((each, await booked(wide, each, start), goal))
    return here, there, moves


async def test_swaps_between_two_full_exams_change_nothing(wide, owner, deadlocks):
    """Where no seat is free nobody moves: 20 of 20 keep their seat and hear that it is full."""
    here, there, moves = await two_exams(wide, capacity=10, students=10)

    told = tally(await at_once(*(moving_by(wide, *each) for each in moves)))

    seats = [await seats_taken(wide, each) for each in (here, there)]
    assert told == {"EXAM_FULL": 20}
    assert seats == [10, 10]
    assert await deadlocks(wide) == 0


async def test_swaps_with_one_free_seat_each_follow_one_another(wide, owner, deadlocks):
    """One free seat in each of two exams lets many swap; seats are right after each of five rounds."""
    here, there, moves = await two_exams(wide, capacity=11, students=10)
    told = []
    for _ in range(5):
        results = await at_once(*(moving_by(wide, *each) for each in moves))
        told.append(dict(tally(results)))
        moves = [
            (who, booking, (there if goal is here else here) if result.word == "ok" else goal)
            for (who, booking, goal), result in zip(moves, results, strict=True)
        ]
        for exam in (here, there):
            assert await seats_taken(wide, exam) == await live_bookings(owner, exam=exam) <= 11
    print(f"swaps with one free seat each: {told}")
    assert all(set(each) <= {"ok", "EXAM_FULL"} for each in told)
    assert await deadlocks(wide) == 0


async def storm_of_moves(wide, *, rounds):
    """16 students go back and forth between two exams as fast as they can: the words they heard."""
    here, there, moves = await two_exams(wide, capacity=16, students=8)

    async def wander(who, booking, goal):
        heard = []
        for _ in range(rounds):
            heard += await at_once(moving_by(wide, who, booking, goal))
            goal = there if goal is here else here
        return heard

    return tally([each for heard in await asyncio.gather(*(wander(*m) for m in moves)) for each in heard])


async def test_moves_in_opposite_directions_meet_no_deadlock(wide, deadlocks):
    """320 moves between two exams, eight students each way: all succeed, no deadlock is even repeated."""
    told = await storm_of_moves(wide, rounds=20)

    met = await deadlocks(wide)
    print(f"320 moves in opposite directions: {dict(told)}, deadlocks: {met}")
    assert told == {"ok": 320}
    assert met == 0


@pytest.mark.timeout(120)
async def test_control_with_unsorted_locks_moves_meet_deadlocks(wide, without, deadlocks):
    """Negative control of the races above; the pool repeats the victims, so that the numbers stay right."""
    await without(SORTED_EXAM_LOCKS)
    told = await storm_of_moves(wide, rounds=4)

    met = await deadlocks(wide)
    print(f"without the order of locks: {dict(told)}, deadlocks: {met}")
    assert met > 0
