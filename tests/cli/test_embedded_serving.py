"""`TALLYBOOK_EMBEDDED=1`: a database that comes and goes with the command."""

import json
import signal
from pathlib import Path

from support.commands import SECRET_KEY, fetch, served


def test_the_embedded_database_lives_with_its_server_and_keeps_its_data(command, tmp_path):
    """Other commands use it while it runs; it is gone when the server is, and its data is found again."""
    command.settings |= {
        "TALLYBOOK_EMBEDDED": "1",
        "TALLYBOOK_SECRET_KEY": SECRET_KEY,
        "TALLYBOOK_LOGIN_CODE": "none",
    }
    assert "no Tallybook schema" in command.error("serve", "--port", "0")[0]
    command("migrate")
    with served(command) as (process, url):
        made = command.json("key", "create", "beside the server", "--scope", "students")
        pid = int((tmp_path / "tallybook/embedded/pgdata/postmaster.pid").read_text().splitlines()[0])
        assert fetch(f"{url}/readyz")[0] == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
        assert process.returncode == 0
    assert not Path(f"/proc/{pid}").exists()
    (kept,) = json.loads(command("key", "list", "--json").stdout)
    assert kept["id"] == made["id"]


def test_a_database_address_beside_the_embedded_one_is_refused(command):
    """Which of the two is meant must not be guessed."""
    (error,) = command.error("stats", TALLYBOOK_EMBEDDED="1", DATABASE_URL="postgresql://h/d")
    assert "both set" in error
