"""What handlers work with: the handed-in dependencies and what the API made from them at its start."""

from __future__ import annotations

from dataclasses import dataclass

from tallybook.api.background import Background
from tallybook.api.deps import AppDeps
from tallybook.api.metrics import Metrics
from tallybook.api.staff_tokens import StaffTokens
from tallybook.api.tokens import StudentTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One per application."""

    deps: AppDeps
    tokens: StudentTokens
    staff_tokens: StaffTokens
    metrics: Metrics
    background: Background
    openapi: bytes
    docs_page: bytes
