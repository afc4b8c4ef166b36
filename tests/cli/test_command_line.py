"""How every command speaks: quickly, in one line when it fails, with exit codes that programs can use."""

import signal
import subprocess
import sys

import pytest

from tallybook.cli.run import run

HEAVY = ("pydantic", "psycopg", "httpx", "uvicorn", "starlette", "rich", "msgspec", "uvloop", "structlog")


def test_help_loads_nothing_heavy():
    """`--help` answers in a blink because none of the large libraries is imported for it."""
    program = (
        "import sys; from tallybook.cli.run import run; run(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for name in ("demo", "serve", "worker", "simulator", "migrate", "import", "verify", "doctor", "loadtest",
                 "contact", "booking", "exam", "staff", "key", "stats", "catalog", "sync", "backup",
                 "restore"):  # fmt: skip
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["contact", "grant", "student:1"], ["exam", "list", "--limit", "x"], ["stats", "--nope"]],
)
def test_wrong_usage_is_exit_code_2_and_two_lines(command, arguments):
    """One line says what is wrong, one where to read more."""
    error, hint = command.error(*arguments, code=2)
    assert error.startswith("error: ")
    assert hint.startswith("hint: see: tallybook")


def test_a_command_without_a_database_names_the_setting(command):
    """Exit code 1, and DATABASE_URL in the line."""
    error, hint = command.error("stats")
    assert "DATABASE_URL is not set" in error
    assert "TALLYBOOK_EMBEDDED" in hint


def test_a_database_that_does_not_answer_is_one_line(command):
    """The reason is the driver's; no password is in it."""
    error, hint = command.error("stats", DATABASE_URL="postgresql://me:hush@127.0.0.1:1/none")
    assert error.startswith("error: the database cannot be reached: ")
    assert "hush" not in error + hint


def test_a_database_without_a_schema_says_to_migrate(tallybook, empty_database_uri):
    """A database without our schema is no bug."""
    error, hint = tallybook.error("stats", DATABASE_URL=empty_database_uri)
    assert "no Tallybook schema" in error
    assert hint == "hint: Run: tallybook migrate"


def test_a_bug_is_one_line_and_a_file_that_says_where(monkeypatch, tmp_path, capsys):
    """No traceback on the screen; the file has it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TALLYBOOK_DEBUG", "")
    monkeypatch.setattr("tallybook.cli.simulating.os.execv", lambda *_: 1 / 0)
    assert run(["simulator"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: this should not have happened (ZeroDivisionError)"
    file = tmp_path / "tallybook" / "last-error.txt"
    assert str(file) in hint
    assert "ZeroDivisionError" in file.read_text()


def test_ctrl_c_is_exit_code_130_without_a_word(tallybook):
    """An interrupted command is quiet."""
    with tallybook.running("worker") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=15)
    assert process.returncode == 130
    assert said == ""


def test_the_version_is_shown(command):
    """`--version` names the program and its release."""
    assert command("--version").stdout.startswith("tallybook 0.")
