"""Merges broken on purpose: whoever trusts a proof wants to see it fail."""

from contextlib import asynccontextmanager

# {name: (deciding function, its words, the words instead)}
BROKEN = {
    # The plain difference: each of our own writes is taken for an edit.
    "history": (
        "classify_answers",
        "case when r -> 'history' is null then 'need_history'",
        "case when true then 'exact'",
    ),
    # Own writes are known by their value: whoever types our number is taken for us.
    "value": (
        "absorb_history",
        "if not (v_entry ->> 'own')::boolean and",
        "if (v_entry ->> 'number')::integer <> v_type.balance and",
    ),
    # Where one request has several times (--skew-ms): the time alone says which entries were read.
    "times": ("own_within", "(p_history ->> 'own_within_s')::double precision", "0"),
}


async def break_merge(stage, name):
    """Exchanges some words of a deciding function; gives its former text."""
    function, words, instead = BROKEN[name]
    ((text,),) = await stage.run(f"select pg_get_functiondef('tallybook.{function}'::regproc)")
    assert text.count(words) == 1, f"{function} does not say {words!r} once"
    await stage.run(text.replace(words, instead))
    return text


@asynccontextmanager
async def broken_merge(stage, name):
    """Broken for as long as the block lasts."""
    former = await break_merge(stage, name)
    try:
        yield
    finally:
        await stage.run(former)
