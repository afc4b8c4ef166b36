"""The stamp: the text beside a contact's balances that tells which write of ours HubSpot shows."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STAMP = re.compile(r"([0-9]{1,18})((?: [a-z0-9_]+=[0-9]{1,15})*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stamp:
    """One HTTP attempt of ours: its number, and the balances it named by HubSpot property."""

    write_no: int
    numbers: dict[str, int]


def parse_stamp(text: str | None) -> Stamp | None:
    """The stamp in a text such as `7 sj_credits=4 cs_credits=0`; None when the text is anything else."""
    found = _STAMP.fullmatch(text or "")
    if found is None:
        return None
    named = (each.split("=") for each in found[2].split())
    return Stamp(int(found[1]), {name: int(number) for name, number in named})
