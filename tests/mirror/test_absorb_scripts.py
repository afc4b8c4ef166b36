"""Random scripts of edits on both sides, with writes that get lost or land late and histories that lag.

`absorb` is real, in a real database; HubSpot is a script that knows what every number must be in the end.
"""

import pytest

from mirror.scripted import Script

RUNS, STEPS = 100, 40


@pytest.mark.parametrize("seed", range(3))
async def test_every_change_of_both_sides_counts_once(db, owner, seed):
    """200 numbers, some thousand events: each ends, on both sides, at the sum of all changes."""
    script = Script(db, owner, seed=seed, runs=RUNS)
    await script.go(STEPS)
    wrong, frozen = await script.wrong(), await script.frozen()
    print(f"seed {seed}: {wrong} wrong, {frozen} frozen, {dict(script.outcomes)}")
    assert script.outcomes["need_history"] > 20
    assert script.outcomes["again"] > 0
    assert (wrong, frozen) == (0, 0)


async def test_what_hubspot_forgot_is_a_persons_and_the_rest_is_right(db, owner):
    """Only 4 entries are kept: some numbers are frozen, none is wrong."""
    script = Script(db, owner, seed=9, runs=RUNS, limit=4)
    await script.go(STEPS)
    wrong, frozen = await script.wrong(), await script.frozen()
    print(f"history of 4: {wrong} wrong, {frozen} frozen")
    assert frozen > 0
    assert wrong == 0


@pytest.mark.parametrize("rule", ["value", "difference"])
async def test_control_without_the_history_numbers_go_wrong(db, owner, rule):
    """Own writes told by their value, or not at all: changes are lost or counted twice."""
    script = Script(db, owner, seed=1, runs=RUNS, rule=rule)
    await script.go(STEPS)
    wrong = await script.wrong()
    print(f"by {rule}: {wrong} of {2 * RUNS} wrong")
    assert wrong > 0
