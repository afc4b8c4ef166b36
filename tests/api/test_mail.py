"""Mail goes out over SMTP, to a real server."""

import email
import email.policy
import socket

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from tallybook.domain.errors import SetupError
from tallybook.outbound.mail import Mailer, MailSettings, MailTls, MailUnavailable


class Inbox:
    def __init__(self):
        self.mails = []
        self.refuse = None

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        if self.refuse:
            return self.refuse
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 OK"


@pytest.fixture
def inbox():
    return Inbox()


@pytest.fixture
def mail_port(inbox):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def check(_server, _session, _envelope, _mechanism, data):
        good = (data.login, data.password) == (b"tally", b"s3cret")
        # Not handled means: the server itself says 535.
        return AuthResult(success=good, handled=False)

    controller = Controller(
        inbox, hostname="127.0.0.1", port=port, authenticator=check, auth_require_tls=False
    )
    controller.start()
    yield port
    controller.stop()


def mailer(mail_port, **changes):
    given = {
        "host": "127.0.0.1",
        "port": mail_port,
        "tls": MailTls.NONE,
        "sender": "Tallybook <no-reply@school.example>",
    }
    return Mailer(MailSettings(**(given | changes)))


async def test_a_mail_arrives_as_written(inbox, mail_port):
    """Sender, recipient, subject and text, beyond ASCII too."""
    await mailer(mail_port, user="tally", password="s3cret").send(
        to="zoë@example.org", subject="Your code: é", text="Code 123456\nBye"
    )
    ((sender, recipients, content),) = inbox.mails
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert (sender, recipients) == ("no-reply@school.example", ["zoë@example.org"])
    assert (mail["Subject"], mail.get_content().splitlines()) == ("Your code: é", ["Code 123456", "Bye"])
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@school.example>")


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("smtp+starttls://me:p%40ss@m.example:2525", ("m.example", 2525, MailTls.STARTTLS, "me", "p@ss")),
        ("smtps://m.example", ("m.example", 465, MailTls.TLS, None, None)),
        ("smtp://127.0.0.1:1025", ("127.0.0.1", 1025, MailTls.NONE, None, None)),
    ],
)
def test_the_address_of_a_server_says_how_it_is_protected(url, read):
    """Scheme, port and credentials, percent-encoding undone."""
    settings = MailSettings.parse(url, sender="a@b.c")
    assert (settings.host, settings.port, settings.tls, settings.user, settings.password) == read


@pytest.mark.parametrize(
    ("url", "sender"),
    [
        ("http://me:s3cret@m.example", "a@b.c"),
        ("smtp://", "a@b.c"),
        ("smtp://me:s3cret@m.example:99999", "a@b.c"),
        ("smtp://me:s3cret@m.example", "Tallybook"),
    ],
)
def test_an_unreadable_mail_setting_is_named_without_its_secret(url, sender):
    """The operator learns how to write it; the log learns no password."""
    with pytest.raises(SetupError) as raised:
        MailSettings.parse(url, sender=sender)
    assert raised.value.hint.startswith("Write TALLYBOOK_")
    assert "s3cret" not in str(raised.value)


async def test_a_line_break_cannot_add_a_header(inbox, mail_port):
    """What stands in a subject or an address stays there."""
    for fields in (
        {"to": "a@b.c\nBcc: x@y.z", "subject": "s"},
        {"to": "a@b.c", "subject": "s\r\nBcc: x@y.z"},
    ):
        with pytest.raises(ValueError, match=r"(?i)linefeed|newline|invalid"):
            await mailer(mail_port).send(text="t", **fields)
    assert inbox.mails == []


@pytest.mark.parametrize("problem", ["refused", "nobody there", "no tls", "wrong password"])
async def test_a_mail_that_cannot_go_out_is_one_kind_of_error(inbox, mail_port, problem):
    """And it says nothing of the mail or the password."""
    if problem == "refused":
        inbox.refuse = "550 no such ada@example.org"
    changes = {
        "refused": {},
        "nobody there": {"port": 1},
        "no tls": {"tls": MailTls.STARTTLS},
        "wrong password": {"user": "tally", "password": "guess"},
    }[problem]
    with pytest.raises(MailUnavailable) as raised:
        await mailer(mail_port, **changes).send(to="ada@example.org", subject="s", text="t")
    assert "ada" not in str(raised.value)
    assert inbox.mails == []
