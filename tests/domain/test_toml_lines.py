"""The line of every key is known, so that a mistake in a catalog can be named with its place."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.catalog import default_catalog_text
from tallybook.domain.toml_lines import key_lines

TEXT = """\
# first
title = "a # no comment"
[[types]]
name = 'x'
pays = [
    "one", # why
    # why not
    "two",
]
[[types]]
name = \"\"\"
[[not_a_table]]
\"\"\"
[types.sub]
a.b = { c = 1, "d.e" = [2,
  3] }
[plain]
when = 1979-05-27 07:32:00
"quoted key" = true
"""


def test_lines_of_tables_keys_elements_and_inline_tables():
    """Comments, multi-line strings, dotted and quoted keys, nested arrays do not shift a line."""
    lines = key_lines(TEXT)
    assert {
        ("title",): 2,
        ("types", 0): 3,
        ("types", 0, "name"): 4,
        ("types", 0, "pays"): 5,
        ("types", 0, "pays", 0): 6,
        ("types", 0, "pays", 1): 8,
        ("types", 1): 10,
        ("types", 1, "name"): 11,
        ("types", 1, "sub"): 14,
        ("types", 1, "sub", "a", "b", "c"): 15,
        ("types", 1, "sub", "a", "b", "d.e", 1): 16,
        ("plain",): 17,
        ("plain", "when"): 18,
        ("plain", "quoted key"): 19,
    }.items() <= lines.items()


def test_windows_line_ends_count_once():
    """A carriage return does not add a line."""
    assert key_lines("a = 1\r\nb = 2\r\n") == {("a",): 1, ("b",): 2}


def paths_of(value, path=()):
    """All paths tomllib sees in a parsed document."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths_of(inner, (*path, index))


def test_the_default_catalog_has_a_line_for_everything():
    """No key of the shipped file is without a place."""
    text = default_catalog_text()
    assert set(key_lines(text)) == set(paths_of(tomllib.loads(text)))


words = st.text("abc_-1", min_size=1, max_size=3)
strings = st.sampled_from(
    ['"plain"', '"esc \\" ] }"', "'lit # ] '", '"""two\n# [lines]\n"""', "'''x''y\n'''", '"""q"""""']
)
scalars = strings | st.sampled_from(["1", "-2.5", "true", "1979-05-27 07:32:00", "07:32:00"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(
            lambda items: "[\n # c ]\n" + "".join(f" {item}, # d\n" for item in items) + "]"
        )
        | st.dictionaries(words, inner, max_size=2).map(
            lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=6,
)
pairs = st.dictionaries(words, values, max_size=3).map(
    lambda found: "".join(f"{key} = {value} # e\n\n" for key, value in found.items())
)


@given(st.lists(st.tuples(words, pairs), max_size=4), pairs)
def test_every_path_tomllib_sees_has_its_line(tables, top):
    """The scanner and tomllib agree on the structure of any document."""
    text = top + "".join(f"[[t_{name}]] # f\n{body}" for name, body in tables)
    lines = key_lines(text)
    assert set(lines) == set(paths_of(tomllib.loads(text)))
    rows = text.split("\n")
    assert all(
        str(path[-1]) in rows[line - 1] for path, line in lines.items() if not isinstance(path[-1], int)
    )
