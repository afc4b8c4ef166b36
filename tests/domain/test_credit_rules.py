"""Which credit pays: the specific one first, one per booking, and never a guess about an unknown balance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.credits import breakdown, paying_credit

PAYS = ("sj_credits", "shared_mock_credits")


@given(st.integers(0, 3), st.integers(0, 3))
def test_the_specific_credit_is_spent_before_the_shared_one(specific, shared):
    """Shared credits pay only when the specific ones are used up."""
    available = dict(zip(PAYS, (specific, shared), strict=True))
    expected = PAYS[0] if specific else PAYS[1] if shared else None
    assert paying_credit(PAYS, available) == expected
    parts = breakdown(PAYS, available)
    assert (parts.specific_credits, parts.shared_credits) == (specific, shared)
    assert (parts.available_credits > 0) == (expected is not None)


def test_credits_of_another_type_do_not_pay():
    """Mini-mock has no shared credit to fall back on."""
    assert paying_credit(("sjmini_credits",), {"sjmini_credits": 0, "shared_mock_credits": 5}) is None


def test_an_unknown_balance_is_an_error_and_not_zero():
    """A student is never told 0 because a number is missing."""
    with pytest.raises(KeyError):
        paying_credit(PAYS, {"sj_credits": 0})
    with pytest.raises(KeyError):
        breakdown(PAYS, {"sj_credits": 1})
