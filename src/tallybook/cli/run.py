"""Runs one command; whatever goes wrong becomes one line, a hint and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from typer import Abort
from typer.main import get_command

from tallybook.cli.places import bug_report_file
from tallybook.domain.errors import CrmBusy, CrmUnavailable, SetupError, TallybookError, Unavailable

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
# What these say by themselves is meant for students.
_MESSAGES: dict[type[TallybookError], str] = {
    CrmBusy: "HubSpot is busy, or the calls it allows are used up.",
    CrmUnavailable: "HubSpot does not answer.",
}


def run(arguments: Sequence[str]) -> int:
    """Runs the command these arguments name and gives its exit code."""
    from tallybook.cli.app import app

    try:
        code = get_command(app).main(list(arguments), prog_name="tallybook", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return FAILED
    except Exception as error:  # noqa: BLE001 - a bug, too, is told in one line.
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    from typer._click.exceptions import ClickException, NoArgsIsHelpError

    if isinstance(error, NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return WRONG_USAGE
    if isinstance(error, ClickException):
        context = getattr(error, "ctx", None)
        command = "tallybook" if context is None else context.command_path
        _complain(error.format_message(), f"see: {command} --help")
        return error.exit_code
    if isinstance(error, TallybookError):
        _complain(_MESSAGES.get(type(error), error.message), _hint_of(error))
        if _is_debugging():
            traceback.print_exception(error)
        return FAILED
    _complain(f"this should not have happened ({type(error).__name__})", _keep(error))
    return FAILED


def _complain(message: str, hint: str | None) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    if hint:
        print("hint:", " ".join(hint.split()), file=sys.stderr)


def _hint_of(error: TallybookError) -> str | None:
    if isinstance(error, SetupError):
        return error.hint
    data = dict(error.details)
    details = []
    if data.get("field") and data.get("problem"):
        details.append(f"{data.pop('field')} {data.pop('problem')}")
    details += [f"{name}: {_flat(value)}" for name, value in data.items() if value not in (None, [], {}, "")]
    if isinstance(error, Unavailable):
        details.append(f"try again in {error.retry_after_s} s")
    return "; ".join(details) or None


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_flat(part) for part in value)
    return str(value)


def _is_debugging() -> bool:
    return os.environ.get("TALLYBOOK_DEBUG", "").strip().lower() in {"1", "true", "yes", "on"}


def _keep(error: Exception) -> str:
    if _is_debugging():
        traceback.print_exception(error)
        return "the lines above say where"
    file = bug_report_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
            opened.write("".join(traceback.format_exception(error)))
    except OSError:
        return "repeat it with TALLYBOOK_DEBUG=1 to see where"
    return f"{file} says where; please send it with a bug report"


def _forget_output() -> None:
    """Python would complain at exit that nobody reads its output any more."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
