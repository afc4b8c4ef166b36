"""Validation rules an administrator sets on a property; every write of the API has to keep them."""

import re
from typing import Any, Literal

import msgspec

from hubspot_simulator.values import BadValueError, number


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    """A rule on one property of a type; `message` and `error` replace the made-up sentence and code."""

    object_type: str
    property: str
    type: Literal["MIN_NUMBER", "MAX_NUMBER", "MIN_LENGTH", "MAX_LENGTH", "REGEX"]
    arguments: list[str]
    message: str | None = None
    error: str | None = None

    def holds(self, text: str) -> bool:
        """Whether a value keeps the rule; an empty one always does."""
        wanted = self.arguments[0]
        if not text:
            return True
        if self.type == "REGEX":
            return re.fullmatch(wanted, text) is not None
        size = len(text) if self.type.endswith("LENGTH") else number(text)
        limit = float(wanted)
        return size is None or (size >= limit if self.type.startswith("MIN") else size <= limit)

    def demand(self, text: str) -> None:
        """BadValueError when a value breaks the rule."""
        if not self.holds(text):
            sentence = self.message or f"{text} does not meet the rule {self.type} {self.arguments[0]}"
            raise BadValueError(self.error or f"INVALID_{self.type}", sentence)

    def answer(self) -> dict[str, Any]:
        """The rule as the property validations API shows it."""
        return {
            "ruleType": self.type,
            "ruleArguments": self.arguments,
            "shouldApplyNormalization": False,
        }


class Rules:
    """The rules of a portal, by object type id and property."""

    def __init__(self) -> None:
        self._by_property: dict[tuple[str, str], list[Rule]] = {}

    def add(self, type_id: str, rule: Rule) -> None:
        """Set a rule; ValueError when its argument is no number or no regular expression."""
        if len(rule.arguments) != 1:
            raise ValueError("a rule takes one argument")
        try:
            rule.holds("1")
        except re.error as error:
            raise ValueError(f"{rule.arguments[0]} is no regular expression: {error}") from None
        self._by_property.setdefault((type_id, rule.property), []).append(rule)

    def clear(self) -> None:
        """Forget all rules."""
        self._by_property.clear()

    def of(self, type_id: str, name: str) -> list[Rule]:
        """The rules of one property."""
        return self._by_property.get((type_id, name), [])

    def of_type(self, type_id: str) -> dict[str, list[Rule]]:
        """The rules of one type by property."""
        return {name: rules for (one, name), rules in self._by_property.items() if one == type_id}

    def every(self) -> list[Rule]:
        """All rules."""
        return [rule for rules in self._by_property.values() for rule in rules]
