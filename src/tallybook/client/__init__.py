"""What other programs import: a typed client of Tallybook's metered actions, and `requires_credits`.

It needs httpx alone and imports nothing else of Tallybook::

    async with Tallybook("https://credits.example", key) as tallybook:
        async with tallybook.paid("email:ada@example.org", "docx_processing"):
            await convert(document)

`BlockingTallybook` is the same for programs without an event loop.
"""

from tallybook.client.blocking import BlockingTallybook
from tallybook.client.connection import Tallybook
from tallybook.client.errors import (
    CreditsRefused,
    InsufficientCredits,
    NotReachable,
    TallybookClientError,
)
from tallybook.client.grace import Grace
from tallybook.client.models import Action, Charge, Check, ClosedHold, Contact, Hold, Refund
from tallybook.client.web import requires_credits

__all__ = [
    "Action",
    "BlockingTallybook",
    "Charge",
    "Check",
    "ClosedHold",
    "Contact",
    "CreditsRefused",
    "Grace",
    "Hold",
    "InsufficientCredits",
    "NotReachable",
    "Refund",
    "Tallybook",
    "TallybookClientError",
    "requires_credits",
]
