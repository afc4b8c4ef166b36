"""Mail over SMTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from enum import StrEnum
from urllib.parse import unquote, urlsplit

import aiosmtplib

from tallybook.domain.errors import SetupError, Unavailable

_TIMEOUT_S = 20.0


class MailTls(StrEnum):
    """How the connection to the mail server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


_TLS_OF_SCHEME = {
    "smtp+starttls": (MailTls.STARTTLS, 587),
    "smtps": (MailTls.TLS, 465),
    "smtp": (MailTls.NONE, 25),
}
_HOW_TO_URL = "Write TALLYBOOK_SMTP_URL as smtp+starttls://user:password@mail.example.com:587."
_HOW_TO_SENDER = "Write TALLYBOOK_MAIL_FROM as Tallybook <no-reply@example.com>."


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSettings:
    """Which server takes our mail, and in whose name it goes out."""

    host: str
    port: int
    tls: MailTls
    sender: str
    user: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, url: str, *, sender: str) -> MailSettings:
        """From `smtp+starttls://user:password@host:587`, `smtps://...` (TLS) or `smtp://...` (none).

        Raises SetupError, which repeats neither the URL nor the password.
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in _TLS_OF_SCHEME or not parts.hostname or port == 0:
            raise SetupError("The address of the mail server cannot be read.", hint=_HOW_TO_URL)
        if not parseaddr(sender)[1].count("@"):
            raise SetupError("The sender of mails has no e-mail address.", hint=_HOW_TO_SENDER)
        tls, usual_port = _TLS_OF_SCHEME[parts.scheme]
        return cls(
            host=parts.hostname,
            port=port or usual_port,
            tls=tls,
            sender=sender,
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )


class MailUnavailable(Unavailable):
    """The mail server did not take the mail. Try again shortly."""

    code = "MAIL_UNAVAILABLE"
    retry_after_s = 30


class Mailer:
    """Sends plain text mails, one connection each: sign-in codes are rare and must not wait for others."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    async def send(self, *, to: str, subject: str, text: str) -> None:
        """Hand one mail to the server. Raises MailUnavailable."""
        settings = self._settings
        try:
            await aiosmtplib.send(
                self._message(to=to, subject=subject, text=text),
                hostname=settings.host,
                port=settings.port,
                username=settings.user,
                password=settings.password,
                use_tls=settings.tls is MailTls.TLS,
                # Never "if the server offers it": somebody in between could hide the offer.
                start_tls=settings.tls is MailTls.STARTTLS,
                timeout=_TIMEOUT_S,
            )
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailUnavailable(server_said=type(error).__name__) from error

    def _message(self, *, to: str, subject: str, text: str) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._settings.sender
        message["To"] = to
        message["Subject"] = subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = make_msgid(
            domain=parseaddr(self._settings.sender)[1].partition("@")[2] or None
        )
        # Mails made by programs should not be answered by programs.
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message
