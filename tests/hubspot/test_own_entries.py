"""Which entries of HubSpot's histories are our own, whether one request has one time there or several."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.catalog import default_catalog
from tallybook.hubspot.fields import parse_contact
from tallybook.hubspot.histories import ONE_REQUEST, SAME_TIME, own_stamps, owners
from tallybook.hubspot.records import HistoryEntry, Record

CATALOG = default_catalog()
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
NAMES = ("sj_credits", "cs_credits", "sjmini_credits")
OURS, ANOTHER_APP, ADA = ("INTEGRATION", "1001"), ("INTEGRATION", "2002"), ("CRM_UI", "userId:7")


def entry(ms, value, source=OURS):
    """One entry, so many milliseconds after the start."""
    return HistoryEntry(
        timestamp=START + timedelta(milliseconds=ms),
        value=str(value),
        source_type=source[0],
        source_id=source[1],
    )


def owned(entries, stamps, *, name="sj_credits", within=ONE_REQUEST):
    """The rank of the stamp that owns each entry; None where nobody of ours does."""
    found = owners(entries, own_stamps(stamps), name, within)
    return [None if each is None else each.rank for each in found]


@st.composite
def histories(draw):
    """What our requests and people write into a record: (histories oldest first, ranks of the true stamps).

    Each request's values get times up to two seconds apart, and each history stays in the order of its times.
    """
    rng = random.Random(draw(st.integers(0, 2**32)))
    skew_ms = draw(st.sampled_from((0, 1, 300, 2000)))
    shown = {name: [entry(-60_000, 3, ADA)] for name in NAMES}
    truth = {name: [None] for name in NAMES}
    stamps, now_ms = [], 0
    for write_no in range(1, draw(st.integers(1, 9))):
        now_ms += rng.choice((1, 20, 400, 1500, 5000))
        is_ours = rng.random() < 0.5
        names = rng.sample(NAMES, rng.randint(1, 3))
        # Small numbers, so that everybody writes the same ones; what does not change leaves no entry.
        numbers = {
            name: rng.choice([n for n in range(4) if str(n) != shown[name][-1].value]) for name in names
        }
        for name, number in numbers.items():
            latest_ms = (shown[name][-1].timestamp - START) // timedelta(milliseconds=1)
            when_ms = max(latest_ms + 1, now_ms - rng.randint(0, skew_ms))
            shown[name].append(entry(min(when_ms, now_ms), number, OURS if is_ours else ADA))
            truth[name].append(len(stamps) + 1 if is_ours else None)
        if is_ours:
            text = " ".join([str(write_no), *(f"{name}={number}" for name, number in numbers.items())])
            when_ms = now_ms - rng.randint(0, skew_ms)
            if stamps:
                when_ms = max((stamps[-1].timestamp - START) // timedelta(milliseconds=1) + 1, when_ms)
            stamps.append(entry(min(when_ms, now_ms), text))
    return shown, stamps, truth, skew_ms


@given(histories())
def test_where_times_differ_each_own_entry_is_known_by_its_own_stamp(made):
    """All of ours and nothing of people's, however close they come and whatever they type."""
    shown, stamps, truth, skew_ms = made
    for name in NAMES:
        assert owned(shown[name], stamps, name=name) == truth[name]
        if not skew_ms:
            assert owned(shown[name], stamps, name=name, within=SAME_TIME) == truth[name]


@given(histories(), st.integers(0, 2**32))
def test_a_stamp_owns_one_entry_whoever_uses_our_token(made, seed):
    """A program with our token writes any of our numbers about then: of two entries one is ours, not both."""
    shown, stamps, _, _ = made
    rng = random.Random(seed)
    for name in NAMES:
        copies = [
            entry((each.timestamp - START) / timedelta(milliseconds=1) + rng.randint(-3000, 3000), each.value)
            for each in shown[name]
        ]
        entries = sorted([*shown[name], *copies], key=lambda each: each.timestamp)
        ranks = [rank for rank in owned(entries, stamps, name=name) if rank is not None]
        assert ranks == sorted(set(ranks))


def test_of_two_entries_that_could_be_ours_the_nearer_one_is():
    """Another program with our token writes our number again, half a second later."""
    stamps = [entry(1000, "1 sj_credits=4")]
    entries = [entry(900, 4), entry(1200, 5, ADA), entry(1500, 4)]
    assert owned(entries, stamps) == [1, None, None]


def test_the_nearest_stamp_is_left_to_the_entry_that_has_no_other():
    """The first stamp is nearer to the second entry, but then the first entry would count as an edit."""
    stamps = [entry(1000, "1 sj_credits=4"), entry(3000, "2 sj_credits=4")]
    entries = [entry(0, 4), entry(1200, 5, ADA), entry(1500, 4)]
    assert owned(entries, stamps) == [1, None, 2]


def test_two_seconds_are_one_request_and_more_are_two():
    """And without that leave a millisecond is."""
    stamps = [entry(3000, "1 sj_credits=4")]
    assert owned([entry(1000, 4)], stamps) == [1]
    assert owned([entry(999, 4)], stamps) == [None]
    assert owned([entry(2999, 4)], stamps, within=SAME_TIME) == [None]
    assert owned([entry(3000, 4)], stamps, within=SAME_TIME) == [1]


def test_neither_another_source_nor_another_number_is_ours():
    """At the very time of the stamp."""
    stamps = [entry(0, "1 sj_credits=4")]
    for within in (SAME_TIME, ONE_REQUEST):
        assert owned([entry(0, 4, ANOTHER_APP)], stamps, within=within) == [None]
        assert owned([entry(0, 4, ADA)], stamps, within=within) == [None]
        assert owned([entry(0, 5)], stamps, within=within) == [None]
        assert owned([entry(0, 4)], stamps, name="cs_credits", within=within) == [None]
        assert owned([entry(0, "4.0")], stamps, within=within) == [1]


def contact(within):
    """A contact whose e-mail and number a portal says we wrote 700 ms before their stamp."""
    shown = {
        "tallybook_sync": [entry(1000, "2 sj_credits=4"), entry(-9000, "1 sj_credits=3")],
        "sj_credits": [entry(300, 4), entry(-9000, 3)],
        "email": [entry(300, "new@example.com")],
        "firstname": [entry(300, "Eve", ADA)],
    }
    values = {name: entries[0].value for name, entries in shown.items()}
    record = Record(id="601", updated_at=START, properties=values, properties_with_history=shown)
    return parse_contact(record, CATALOG, own_within=within).to_absorb()["history"]


def test_numbers_and_texts_are_recognised_alike():
    """Both or neither; and the database is told how far, and by which stamp."""
    exact, near = contact(SAME_TIME), contact(ONE_REQUEST)
    assert [each["own_rank"] for each in exact["balances"]["sj_credits"]] == [1, None]
    assert [each["own_rank"] for each in near["balances"]["sj_credits"]] == [1, 2]
    assert (exact["texts"]["email"]["own"], near["texts"]["email"]["own"]) == (False, True)
    assert not near["texts"]["firstname"]["own"]
    assert (exact["own_within_s"], near["own_within_s"]) == (0, 2)
    assert near["stamps"] == ("1 sj_credits=3", "2 sj_credits=4")
