"""What the documents tell people to type exists and does what they say."""

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

from tallybook.cli.app import app
from tallybook.settings import variables

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "examples/README.md")
] + sorted((ROOT / "docs").rglob("*.md"))
COMMAND = typer.main.get_command(app)
# What a document sets for other programs, or shows being set by the reader.
OTHERS = frozenset(("TALLYBOOK_URL", "TALLYBOOK_KEY", "SUPABASE_SCHEMA_NAME"))


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def lines(language="sh"):
    """(document, line) of every line of its blocks, continued ones joined, without comments."""
    for document in DOCUMENTS:
        for block in blocks(document, language):
            for line in block.replace("\\\n", " ").splitlines():
                yield document.name, re.sub(r"(^|\s)#.*", "", line).strip()


def tallybook_lines():
    return sorted({(name, line) for name, line in lines() if line.startswith("tallybook ")})


@pytest.mark.parametrize(("document", "line"), tallybook_lines())
def test_every_command_of_a_document_exists_with_its_options(document, line):
    """Names and options; what a `<...>` or `...` stands for is left to the reader."""
    words = [word for word in shlex.split(line.partition(" > ")[0])[1:] if word != "..."]
    command = COMMAND
    while hasattr(command, "commands") and words:
        name = words.pop(0)
        assert name in command.commands, f"{document}: there is no {name!r} in: {line}"
        command = command.commands[name]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    options = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
    if not command.ignore_unknown_options:
        assert options <= known, f"{document}: {line}"


def test_every_setting_of_a_document_exists():
    """`NAME=value` in a block, and `NAME` in the text where it begins like one of ours."""
    unknown = set()
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        named = set(
            re.findall(r"^(?:export )?([A-Z][A-Z0-9_]{3,})=", "\n".join(blocks(document, "sh")), re.MULTILINE)
        )
        named |= set(re.findall(r"`((?:TALLYBOOK|HUBSPOT|DATABASE|CREDITS|REDIS|STRIPE)_[A-Z0-9_]+)", text))
        unknown |= {
            (document.name, name)
            for name in named - set(variables()) - OTHERS
            if not name.startswith("CREDIT_COST_")
        }
    tests_and_dev = (ROOT / "dev").read_text("utf-8") + (ROOT / "src/tallybook/settings.py").read_text(
        "utf-8"
    )
    assert {each for each in unknown if each[1] not in tests_and_dev} == set()


def test_every_link_of_a_document_leads_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text("utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_dev_command_of_a_document_exists():
    known = set(re.findall(r"^    ([a-z]+)(?: \|.*)?\)", (ROOT / "dev").read_text("utf-8"), re.MULTILINE))
    for name, line in lines():
        if found := re.match(r"\./dev ([a-z]+)", line):
            assert found[1] in known, f"{name}: {line}"


async def test_the_python_of_charging_runs(service, tmp_path):
    """As it stands, against a real server: a new person has the welcome credits, and pays."""
    [program] = blocks(ROOT / "docs/how-to/charge.md", "python")
    file = tmp_path / "program.py"
    file.write_text(program, "utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        file,
        env={
            **os.environ,
            "TALLYBOOK_URL": service.server.url,
            "TALLYBOOK_KEY": service.credits_key,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert (process.returncode, said.decode().splitlines()) == (0, ["5 100"])


async def test_the_curl_lines_of_charging_run(service, tmp_path):
    """The hold and its capture, pasted into a shell."""
    await service.http.post(
        "/api/contacts",
        json={"email": "ada@example.org"},
        headers={"authorization": f"Bearer {service.credits_key}"},
    )
    hold, capture = [
        line
        for line in blocks(ROOT / "docs/how-to/charge.md", "sh")[1].replace("\\\n", " ").splitlines()
        if line
    ]
    script = (
        f'set -e\nHOLD=$({hold.replace("curl ", "curl -sS ")} | sed \'s/.*"id": *"\\([^"]*\\).*/\\1/\')\n'
        f"{capture.replace('curl ', 'curl -sS ')}\n"
    )
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        script,
        env={
            **os.environ,
            "TALLYBOOK_URL": service.server.url,
            "TALLYBOOK_KEY": service.credits_key,
            "no_proxy": "*",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert '"charged": {"credits": 2}' in said.decode(), said
