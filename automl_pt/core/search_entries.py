"""The entries of a search: a field of a run's settings with its range, or with the values to choose from.

An entry is written `NAME=LOW:HIGH`, `NAME=VALUE,VALUE,...`, or `NAME` alone for all values of a field that has few.
What a field may be is asked of the field itself, so that a new field can be searched without a line here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from automl_pt.core.likeness import did_you_mean
from automl_pt.core.text import printable

#: a range whose ends are so far apart is searched on a log scale
LOG_RATIO = 100
SCALES = ("log", "linear")
_BOUNDS = {"gt": "above {:g}", "ge": "at least {:g}", "lt": "below {:g}", "le": "at most {:g}"}


class EntryError(ValueError):
    """An entry that cannot be searched; its text says why, and what can."""


@dataclass(frozen=True)
class Registered:
    """Says of a text field that its values are names of what plugins register, which are known once they are loaded.

    `kind` is the hook's word for one, such as "optimizer"; `joined` a sign that joins several names in one value.
    """

    kind: str
    joined: str | None = None

    def names(self, value: str) -> list[str]:
        """Return the names in a value."""
        return value.split(self.joined) if self.joined else [value]


@dataclass(frozen=True)
class SearchEntry:
    """One searched field: from `low` to `high`, or among `choices`, which are empty for a range."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """Return the values at which a contradiction to other settings shows: the ends, or all choices."""
        return self.choices or (self.low, self.high)

    def text(self) -> str:
        """Write the entry in one way, so that two entries can be compared."""
        if self.choices:
            return f"{self.name}={','.join(map(_written, self.choices))}"
        return f"{self.name}={_written(self.low)}:{_written(self.high)}:{'log' if self.is_log else 'linear'}"

    def words(self) -> str:
        """Say for a person what is searched."""
        if self.choices:
            return f"{self.name} {', '.join(map(_written, self.choices))}"
        return f"{self.name} {self.low:g} to {self.high:g} ({'log' if self.is_log else 'linear'} scale)"

    def holds(self, other: SearchEntry) -> bool:
        """Say whether all that `other` searches is searched here, too, in the same way."""
        if self.choices or other.choices:
            return self.choices == other.choices
        same = (self.is_log, self.is_whole) == (other.is_log, other.is_whole)
        return same and self.low <= other.low and other.high <= self.high


def as_texts(given: Any) -> Any:
    """Return entries given as one text or as a table, `{NAME: values}`, as texts; anything else is returned unchanged.

    Of a table's value a text is what follows the equals sign, two numbers are a range, and other arrays are choices.
    """
    if isinstance(given, Mapping):
        return tuple(_as_text(str(name), value) for name, value in given.items())
    return (given,) if isinstance(given, str) else given


def _as_text(name: str, value: Any) -> str:
    if value is True:
        return name
    if not isinstance(value, list | tuple):
        return f"{name}={_written(value)}"
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
    return f"{name}={(':' if numbers and len(value) == 2 else ',').join(map(_written, value))}"


def parse_entries(
    texts: Iterable[str], model: type[BaseModel], shared: Mapping[str, str]
) -> tuple[tuple[SearchEntry, ...], list[str]]:
    """Return the entries of `model` that are right, and a sentence for each that is not.

    `shared` maps the fields in which trials may not differ to the reason.
    """
    found: dict[str, SearchEntry] = {}
    mistakes: list[str] = []
    for text in texts:
        try:
            entry = parse_entry(text, model, shared)
            if entry.name in found:
                raise EntryError(f"{entry.name} is searched twice; give one range for it")
            found[entry.name] = entry
        except EntryError as error:
            mistakes.append(f"search: {error}")
    return tuple(found.values()), mistakes


def parse_entry(text: str, model: type[BaseModel], shared: Mapping[str, str]) -> SearchEntry:
    """Read one entry; raise EntryError that names the field, what was given and what the field allows."""
    name, equals, rest = (part.strip() for part in str(text).partition("="))
    field = _field(name, model, shared)
    allowed = values_of(field.annotation)
    if not equals and allowed is not None:
        return SearchEntry(name, choices=allowed)
    if not rest:
        raise EntryError(f"{name} needs {_wanted(field)}, got {printable(text)!r}")
    if "," in rest or ":" not in rest:
        return _choices(name, field, rest)
    if allowed is not None or registered(field):
        raise EntryError(f"{name} has no range; it needs {_wanted(field)}, got {printable(rest)!r}")
    return _range(name, field, rest)


def _field(name: str, model: type[BaseModel], shared: Mapping[str, str]) -> FieldInfo:
    field = model.model_fields.get(name)
    if field is None:
        known = searchable(model, shared)
        hint = did_you_mean(name, known) or f"searched can be {', '.join(known)}"
        raise EntryError(f"{printable(name)!r} is not a setting of a run; {hint}")
    why = shared.get(name)
    if why is not None:
        raise EntryError(f"{name} cannot be searched, because {why}")
    if not _can_be_searched(field):
        raise EntryError(f"{name} cannot be searched, because it is neither a number nor a choice of a few values")
    return field


def searchable(model: type[BaseModel], shared: Mapping[str, str]) -> list[str]:
    """Return the fields that can be searched: numbers, truth values, choices and names that trials may differ in."""
    return [name for name, field in model.model_fields.items() if name not in shared and _can_be_searched(field)]


def _can_be_searched(field: FieldInfo) -> bool:
    return bool(values_of(field.annotation) or number_of(field.annotation) or registered(field))


def registered(field: FieldInfo) -> Registered | None:
    """Return what a field says of the names that it takes; None for a field of another kind."""
    return next((item for item in field.metadata if isinstance(item, Registered)), None)


def values_of(annotation: Any) -> tuple[Any, ...] | None:
    """Return the values of a type that has few: a truth value or a Literal, alone or beside what cannot be searched."""
    plain = plain_type(annotation)
    if plain is bool:
        return (True, False)
    return next((get_args(one) for one in (plain, *get_args(plain)) if get_origin(one) is Literal), None)


def number_of(annotation: Any) -> type[int] | type[float] | None:
    """Return whether a type is a whole or any number; None for any other type."""
    plain = plain_type(annotation)
    return plain if plain in (int, float) else None


def plain_type(annotation: Any) -> Any:
    """Strip `Annotated` and `| None` from a type."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    arguments = get_args(annotation)
    if type(None) in arguments:
        return plain_type(next(argument for argument in arguments if argument is not type(None)))
    return annotation


def _choices(name: str, field: FieldInfo, rest: str) -> SearchEntry:
    values = tuple(_value(name, field, part.strip()) for part in rest.split(","))
    if len(values) == 1:
        option = f"--{name.replace('_', '-')}"
        raise EntryError(
            f"{name} has one value, {rest}: nothing to search; it needs {_wanted(field)}, or is set by {option}"
        )
    if len(set(values)) < len(values):
        raise EntryError(f"{name} has a value twice, got {printable(rest)!r}")
    return SearchEntry(name, choices=values)


def _range(name: str, field: FieldInfo, rest: str) -> SearchEntry:
    parts = [part.strip() for part in rest.split(":")]
    scale = parts.pop() if len(parts) == 3 else None
    if len(parts) != 2 or scale not in (None, *SCALES):
        raise EntryError(f"{name} needs LOW:HIGH, LOW:HIGH:log or LOW:HIGH:linear, got {printable(rest)!r}")
    low, high = (_value(name, field, part) for part in parts)
    if low is None or high is None or not low < high:
        raise EntryError(f"{name} must go from low to high, got {printable(rest)}")
    if scale == "log" and low <= 0:
        raise EntryError(f"{name} needs a low end above 0 for a log scale, got {printable(rest)}")
    is_log = scale == "log" or (scale is None and low > 0 and high >= LOG_RATIO * low)
    return SearchEntry(name, low=low, high=high, is_log=is_log, is_whole=number_of(field.annotation) is int)


def _value(name: str, field: FieldInfo, text: str) -> Any:
    """Read one value as the field takes it."""
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    value = _plain(text, field)
    try:
        found = adapter.validate_python(value)
        if not isinstance(found, bool | int | float | str | None):
            raise EntryError(f"{name} cannot be searched among {printable(text)}; it needs {_wanted(field)}")
        return found
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Input ")
        near = did_you_mean(text, map(str, values_of(field.annotation) or ()))
        hint = f"; {near}" if near else ""
        raise EntryError(f"{name} {rule}, got {printable(text)}; it needs {_wanted(field)}{hint}") from None


def _plain(text: str, field: FieldInfo) -> Any:
    if text == "none" and type(None) in get_args(field.annotation):
        return None
    if plain_type(field.annotation) is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        kind = number_of(field.annotation)
        return text if kind is None else kind(text)
    except ValueError:
        return text


def _wanted(field: FieldInfo) -> str:
    values = values_of(field.annotation)
    if values is not None:
        return f"two or more of {', '.join(map(_written, values))}, separated by commas"
    if (names := registered(field)) is not None:
        return f"two or more names separated by commas, each of {_a(names.kind)}"
    bounds = [
        words.format(bound)
        for sort, words in _BOUNDS.items()
        for item in (*field.metadata, *_inner(field.annotation))
        if isinstance(bound := getattr(item, sort, None), int | float)
    ]
    kind = "whole numbers" if number_of(field.annotation) is int else "numbers"
    return " ".join(filter(None, [f"LOW:HIGH, or values separated by commas, with {kind}", " and ".join(bounds)]))


def _inner(annotation: Any) -> list[Any]:
    """Return what `Annotated` says of the type inside `| None`, the parts of a pydantic Field among it."""
    inner = next((part for part in get_args(annotation) if get_origin(part) is Annotated), None)
    found = get_args(inner)[1:] if inner is not None else ()
    return [part for item in found for part in (getattr(item, "metadata", None) or [item])]


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    return f"{value!r}" if isinstance(value, float) and math.isfinite(value) else str(value)


def corners(entries: Iterable[SearchEntry], most: int = 1024) -> Iterable[dict[str, Any]]:
    """Yield the settings of at most so many trials at the ends of the ranges, where a contradiction would show."""
    listed = tuple(entries)
    for _, values in zip(range(most), product(*(entry.ends for entry in listed)), strict=False):
        yield dict(zip((entry.name for entry in listed), values, strict=True))
