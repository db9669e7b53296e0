"""Create settings, with all mistakes reported at once, and read those of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import (
    ValidationError,
)

from automl_pt.config.settings import Settings, as_named_now
from automl_pt.core.config_files import toml_mistake
from automl_pt.core.errors import ConfigError
from automl_pt.core.likeness import did_you_mean

#: what a text must be, for the settings with a pattern
PATTERNS = {
    "device": "must be auto, cpu, cuda, cuda:N or mps",
    "name": "must be letters, digits, dots, dashes and underscores, at most 100, and start with a letter or digit",
    "trials_per_gpu": "must be auto, or a number from 1 to 99",
}

C = TypeVar("C", bound="Settings")


def as_made(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's settings under this version's names, with the fixed behaviour of earlier versions.

    Before `batch_norm` was a setting the statistics were always trained, on pretrained weights too.
    """
    starts_trained = bool(settings.get("pretrained") or settings.get("weights"))
    earlier = {"batch_norm": "train"} if starts_trained and "batch_norm" not in settings else {}
    return {**as_named_now(settings), **earlier}


def make(kind: type[C], settings: Mapping[str, Any], *, source: str = "settings", toml: bool = False) -> C:
    """Create settings of `kind`, or raise one ConfigError that lists every mistake, with `toml` in TOML's terms."""
    try:
        return kind(**settings)
    except ValidationError as error:
        raise ConfigError(_mistakes(kind, settings, error, toml), source=source) from None


def _mistakes(kind: type[Settings], settings: Mapping[str, Any], error: ValidationError, toml: bool) -> list[str]:
    """List all mistakes, including contradictions between settings that are valid on their own."""
    found = []
    for item in error.errors():
        field = kind.model_fields.get(str(item["loc"][0])) if item["loc"] else None
        own = toml_mistake(item, field.default if field else None) if toml else None
        found += (own or _mistake(kind, item["loc"], item["msg"], item.get("input"), item["type"])).split("\n")
    wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    if not wrong:
        return found
    right = kind.model_construct(**{name: value for name, value in settings.items() if name not in wrong})
    return found + [rule for names, rule in right.contradictions() if not names & wrong]


def _mistake(kind: type[Settings], location: tuple[int | str, ...], message: str, given: object, type_: str) -> str:
    name = ".".join(str(part) for part in location)
    if type_ == "extra_forbidden":
        hint = did_you_mean(name, kind.model_fields)
        return f"{name}: unknown setting" + (f"; {hint}" if hint else "")
    if type_ == "missing":
        return f"{name}: required"
    rule = PATTERNS.get(name, message) if type_ == "string_pattern_mismatch" else message.removeprefix("Value error, ")
    rule = rule.removeprefix("Input ")
    return f"{name}: {rule}, got {given!r}" if name else rule
