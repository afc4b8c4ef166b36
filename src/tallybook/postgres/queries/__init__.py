"""Named SQL: one file, one statement, one line of purpose. `sql(name)` gives its text."""

from functools import cache
from importlib.resources import files
from typing import LiteralString


@cache
def sql(name: str) -> LiteralString:
    """The statement in `name`.sql; KeyError when there is none."""
    source = files(__name__) / f"{name}.sql"
    if not source.is_file():
        raise KeyError(f"there is no query named {name}")
    # A file of ours, never text put together from input: that is what LiteralString promises psycopg.
    return source.read_text(encoding="utf-8")
