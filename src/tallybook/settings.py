"""Every setting, read once from the environment and `.env` into one frozen object.

A field's name is the variable's name in lower case. A secret is a `SecretStr`: it cannot slip into a log.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tallybook.domain.catalog import COST_PREFIX, cost_overrides_of
from tallybook.domain.clock import zone_of
from tallybook.domain.errors import SetupError
from tallybook.domain.errors import ValidationError as InvalidValue

Count = Annotated[int, Field(ge=1)]
Names = tuple[str, ...]

SHORTEST_SECRET_KEY = 32

NOT_USED_YET: Mapping[str, str] = {
    "SUPABASE_JWT_SECRET": "staff sign in with local accounts",
    "SUPABASE_URL": "staff sign in with local accounts",
    "TALLYBOOK_SUPABASE_STUDENTS": "students sign in here only",
}
"""Settings of the product that this release does not use, and what holds instead."""

OF_OTHER_PROGRAMS = frozenset(("TALLYBOOK_PYTHON", "TALLYBOOK_CHROMIUM", "TALLYBOOK_REQUIRE_BROWSER"))
"""Variables of `./dev` and the test suite that look like settings of Tallybook."""

_OURS = ("TALLYBOOK_",)
_PERHAPS_OURS = ("HUBSPOT_", "HS_", "DATABASE_", "CRON_", "CREDITS_", "SUPABASE_", "REDIS_", "STRIPE_")
_HOW_TO_SECRET = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"  # noqa: S105 - how to make one
_HINTS = {
    "DATABASE_URL": "Set it to a PostgreSQL address (postgresql://...), or set TALLYBOOK_EMBEDDED=1.",
    "HS_PRIVATE_APP_TOKEN": "Set it to the access token of your HubSpot private app or service key.",
    "TALLYBOOK_ALERT_SECRET": f"Alerts are signed with it. Make one: {_HOW_TO_SECRET}",
    "TALLYBOOK_LOGIN_CODE": "Choose email (sign-in by a mailed code) or none (the pair is enough).",
    "TALLYBOOK_MAIL_FROM": "Set it to the sender of mails, e.g. Tallybook <no-reply@example.com>.",
    "TALLYBOOK_SECRET_KEY": f"Make one: {_HOW_TO_SECRET}",
    "TALLYBOOK_SMTP_URL": "Set it to your mail server: smtp+starttls://user:password@mail.example.com:587.",
}


class Settings(BaseSettings):
    """What an operator can choose. `load_settings` makes one; nothing changes it afterwards."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", alias_generator=str.upper, hide_input_in_errors=True
    )

    api_base_url: str | None = None
    credits_cache_ttl_s: Annotated[int, Field(ge=0, le=3600)] = 0
    cron_secret: SecretStr | None = None
    database_migration_url: SecretStr | None = None
    database_url: SecretStr | None = None
    hs_private_app_token: SecretStr | None = None
    hubspot_base_url: str = "https://api.hubapi.com"
    hubspot_bookings_object: str = "2-50158943"
    hubspot_calls_per_10s: Count = 190
    hubspot_calls_per_s: Count | None = None
    hubspot_client_secret: SecretStr | None = None
    hubspot_mock_exams_object: str = "2-50158913"
    hubspot_searches_per_s: Count = 5
    redis_url: SecretStr | None = None
    stripe_webhook_secret: SecretStr | None = None
    supabase_jwt_secret: SecretStr | None = None
    supabase_url: str | None = None
    tallybook_alert_lag_s: Count = 300
    tallybook_alert_secret: SecretStr | None = None
    tallybook_alert_url: str | None = None
    tallybook_catalog: Path | None = None
    tallybook_cors_origins: Names = ()
    tallybook_debug: bool = False
    tallybook_docs: Literal["staff", "public"] = "staff"
    tallybook_embedded: bool = False
    tallybook_loadtest_key: SecretStr | None = None
    tallybook_log_level: Literal["debug", "info", "warning", "error"] = "info"
    tallybook_login_code: Literal["email", "none"] | None = None
    tallybook_mail_from: str | None = None
    tallybook_metrics_token: SecretStr | None = None
    tallybook_mode: Literal["live", "observe"] = "live"
    tallybook_pool_size: Count = 16
    tallybook_pooler: Literal["session", "transaction"] = "session"
    tallybook_processes: Count = 8
    tallybook_public_url: str | None = None
    tallybook_secret_key: SecretStr | None = None
    tallybook_secret_key_previous: SecretStr | None = None
    tallybook_smtp_url: SecretStr | None = None
    tallybook_student_auth: Literal["token", "pair"] = "token"
    tallybook_supabase_students: Literal["on", "off"] = "off"
    tallybook_time_zone: str = "America/Toronto"
    tallybook_trusted_proxies: Annotated[int, Field(ge=0)] = 0
    tallybook_workers: Count = 1

    # Not variables of their own: what `CREDIT_COST_<ACTION>` say, and what is odd about the variables given.
    cost_overrides: Mapping[str, int] = {}
    warnings: Names = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` hands in: the demo and the tests bring an environment of their own."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator("tallybook_cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("hubspot_base_url", "api_base_url", "tallybook_public_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with https:// or http://")
        return value.rstrip("/") if value is not None else None

    @field_validator("database_url", "database_migration_url")
    @classmethod
    def _is_database(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        # `host=... dbname=...` is libpq's other way to write it.
        if value is not None and not text.startswith(("postgresql://", "postgres://")) and "=" not in text:
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("tallybook_time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            zone_of(value)
        except InvalidValue:
            raise ValueError("must be a time zone such as America/Toronto") from None
        return value

    @field_validator("tallybook_secret_key")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_SECRET_KEY:
            raise ValueError(f"must have at least {SHORTEST_SECRET_KEY} characters")
        return value

    @model_validator(mode="after")
    def _is_one_database(self) -> Settings:
        if self.tallybook_embedded and self.database_url is not None:
            raise ValueError("DATABASE_URL and TALLYBOOK_EMBEDDED=1 are both set; remove one of them")
        return self

    def needed(self, variable: str) -> str:
        """The text of a setting that has no default. Raises SetupError naming it when it is not set."""
        text = self.text(variable)
        if text is None:
            raise SetupError(f"{variable} is not set.", hint=_HINTS.get(variable, "See .env.example."))
        return text

    def text(self, variable: str) -> str | None:
        """The text of a setting, also of a secret one; None when it is not set."""
        value = getattr(self, variable.lower())
        if value is None:
            return None
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    @property
    def observes(self) -> bool:
        """Whether nothing is to be decided here and nothing written to HubSpot."""
        return self.tallybook_mode == "observe"

    @property
    def migration_url(self) -> str:
        """Where migrations run: a session or direct connection. Raises SetupError."""
        return self.text("DATABASE_MIGRATION_URL") or self.needed("DATABASE_URL")


OWN_FIELDS = frozenset(("cost_overrides", "warnings"))


def variables() -> tuple[str, ...]:
    """The names of all settings, but for `CREDIT_COST_<ACTION>`."""
    return tuple(name.upper() for name in Settings.model_fields if name not in OWN_FIELDS)


def load_settings(
    environment: Mapping[str, str] | None = None, *, env_file: Path | None = Path(".env")
) -> Settings:
    """The settings of the process's environment, and of `env_file` where that does not say; blank is unset.

    Raises SetupError of one line, naming the first setting that is wrong.
    """
    given = _read(os.environ if environment is None else environment, env_file)
    known = {name: given[name] for name in variables() if name in given}
    costs = {name: text for name, text in given.items() if name.startswith(COST_PREFIX)}
    try:
        return Settings.model_validate(
            {**known, "COST_OVERRIDES": cost_overrides_of(costs), "WARNINGS": _warnings(given)}
        )
    except ValidationError as error:
        _explain(error)


def _read(environment: Mapping[str, str], env_file: Path | None) -> dict[str, str]:
    from_file = dotenv_values(env_file, interpolate=False) if env_file and env_file.is_file() else {}
    everything = {**from_file, **environment}
    return {name: text.strip() for name, text in everything.items() if text is not None and text.strip()}


def _warnings(given: Mapping[str, str]) -> tuple[str, ...]:
    known = variables()
    found = [
        f"{name} is set but not used by this release: {NOT_USED_YET[name]}"
        for name in NOT_USED_YET
        if name in given
    ]
    for name in sorted(set(given) - set(known) - OF_OTHER_PROGRAMS):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        meant = f"; did you mean {close[0]}?" if close else ""
        # Other programs have variables such as DATABASE_NAME; of those, only typing errors are told.
        if name.startswith(_OURS) or (name.startswith(_PERHAPS_OURS) and close and close[0] not in given):
            found.append(f"{name} is set, but there is no such setting{meant}")
    return tuple(found)


def _explain(error: ValidationError) -> NoReturn:
    first = error.errors(include_url=False, include_input=False)[0]
    said = str(first["msg"]).removeprefix("Value error, ")
    if not first["loc"]:
        raise SetupError(f"{said}.") from None
    variable = str(first["loc"][0])
    said = said[:1].lower() + said[1:]
    raise SetupError(f"{variable} is not valid: {said}.", hint=_HINTS.get(variable)) from None
