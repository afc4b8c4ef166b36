"""Mail over SMTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from enum import StrEnum

import aiosmtplib

from tallybook.domain.errors import Unavailable

_TIMEOUT_S = 20.0


class MailTls(StrEnum):
    """How the connection to the mail server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSettings:
    """Which server takes our mail, and in whose name it goes out."""

    host: str
    port: int
    tls: MailTls
    sender: str
    user: str | None = None
    password: str | None = None


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
