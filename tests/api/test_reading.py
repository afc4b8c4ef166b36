"""The body as it comes off the wire, in whatever pieces."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallybook.api.reading import BODY_LIMIT_BYTES, ClientGoneError, read_body
from tallybook.domain.errors import PayloadTooLarge

PIECES = st.lists(st.integers(0, BODY_LIMIT_BYTES + 2), min_size=1, max_size=5)


def wire(pieces, *, hangs_up=False):
    messages = [
        {"type": "http.request", "body": b"x" * size, "more_body": hangs_up or place < len(pieces) - 1}
        for place, size in enumerate(pieces)
    ]
    if hangs_up:
        messages.append({"type": "http.disconnect"})
    left = iter(messages)

    async def receive():
        return next(left)

    return receive, left


@given(PIECES)
@example([BODY_LIMIT_BYTES])
@example([BODY_LIMIT_BYTES + 1])
@example([BODY_LIMIT_BYTES, 1])
async def test_a_body_passes_exactly_when_its_pieces_together_fit(pieces):
    """However a body without an announced length is cut, the limit is the same."""
    receive, _ = wire(pieces)
    if sum(pieces) <= BODY_LIMIT_BYTES:
        assert await read_body(receive, {}) == b"x" * sum(pieces)
    else:
        with pytest.raises(PayloadTooLarge):
            await read_body(receive, {})


async def test_no_piece_is_read_beyond_the_limit():
    """Of a hundred pieces as large as the limit two are read."""
    receive, left = wire([BODY_LIMIT_BYTES] * 100)
    with pytest.raises(PayloadTooLarge):
        await read_body(receive, {})
    assert len(list(left)) == 98


@pytest.mark.parametrize("announced", [b"65537", b"-1", b"1e3", b"\xb2", b"99999999999999999999"])
async def test_an_announced_length_that_cannot_be_is_refused_unread(announced):
    """Nothing is read for it."""
    receive, left = wire([1])
    with pytest.raises(PayloadTooLarge):
        await read_body(receive, {b"content-length": announced})
    assert len(list(left)) == 1


@given(PIECES)
async def test_a_client_that_hangs_up_midway_is_gone(pieces):
    """Half a body is no body."""
    receive, _ = wire(pieces, hangs_up=True)
    with pytest.raises(ClientGoneError if sum(pieces) <= BODY_LIMIT_BYTES else PayloadTooLarge):
        await read_body(receive, {})
