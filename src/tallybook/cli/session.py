"""What commands share: settings, the embedded server where asked for, the parts, and showing answers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from tallybook.settings import Settings
    from tallybook.wiring import Parts

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen; change nothing.")]


def read_settings() -> Settings:
    """The settings of the environment and `.env`; what is odd about them is said once. Raises SetupError."""
    from tallybook.settings import load_settings

    settings = load_settings()
    for line in settings.warnings:
        print("warning:", line, file=sys.stderr)
    return settings


@contextmanager
def database_settings(settings: Settings | None = None) -> Iterator[Settings]:
    """Settings whose DATABASE_URL can be used; runs the embedded server where those ask for it."""
    settings = settings or read_settings()
    if not settings.tallybook_embedded:
        settings.needed("DATABASE_URL")
        yield settings
        return
    from pydantic import SecretStr

    from tallybook.cli.embedded import embedded_uri

    with embedded_uri() as uri:
        yield settings.model_copy(
            update={
                "database_url": SecretStr(uri),
                "database_migration_url": None,
                "tallybook_embedded": False,
            }
        )


def with_parts(
    work: Callable[[Parts], Awaitable[T]], *, needs_schema: bool = True, decides: bool = False
) -> T:
    """What `work` gives; it gets the parts, on a database that has our schema. Raises TallybookError.

    `decides`: it changes bookings, sessions or credits, which observe mode refuses.
    """
    import structlog

    from tallybook.domain.errors import Observing
    from tallybook.wiring import opened

    async def inside(settings: Settings) -> T:
        # Standard output is the command's answer, which a program may read.
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger("warning"),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
        if decides and settings.observes:
            raise Observing(setting="TALLYBOOK_MODE=observe")
        async with opened(settings, pool_size=4) as parts:
            if needs_schema:
                await parts.demand_schema()
            return await work(parts)

    with database_settings() as settings:
        return asyncio.run(inside(settings))


def actor() -> str:
    """Who acts, for the ledger and the audit log: `cli:<os user>`."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        # A container's user need not have a name.
        return f"cli:{os.getuid()}"


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Names and values below each other; what is empty is left out."""
    shown = {name: _text(value) for name, value in fields.items() if value not in (None, "", [], {})}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}  {value}")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows as aligned columns under their names."""
    texts = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max([len(name), *(len(line[at]) for line in texts)]) for at, name in enumerate(columns)]
    for line in [list(columns), *texts]:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(part) for part in value)
    return str(value)
