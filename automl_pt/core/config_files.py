"""Reads config files as TOML, and words mistakes in TOML's terms, because TOML is what the user wrote."""

from __future__ import annotations

import codecs
import json
import math
import tomllib
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

from automl_pt.core.errors import ConfigError
from automl_pt.core.files import not_found
from automl_pt.core.text import printable

#: byte order marks of encodings that TOML does not allow
_OTHERS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
#: TOML's names of Python's types; bool comes before int, because a bool is an int in Python
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    *((bool, "boolean"), (str, "string"), (int, "integer"), (float, "float")),
    *(((list, tuple), "array"), (dict, "table"), ((date, time), "date or time")),
)
#: what a config file may hold beside settings: options that say where and how a command writes
COMMAND_OPTIONS: dict[str, type] = {"output": str, "quiet": bool, "json": bool}
#: pydantic's name of a mistake -> what the value must be
_RULES = {
    **dict.fromkeys(("string_type",), "must be a string in quotes"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be an integer"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a config file's table; raise ConfigError naming the line where the file is not valid TOML or not UTF-8.

    A byte order mark at the start, as some editors on Windows write it, is ignored.
    """
    try:
        return tomllib.loads(_text(Path(path).read_bytes()))
    except RecursionError as error:
        raise ConfigError(["arrays or tables are nested too deep"], source=str(path)) from error
    except FileNotFoundError as error:
        raise ConfigError([not_found(path)], source=str(path)) from error
    except (OSError, ValueError) as error:
        raise ConfigError([str(error)], source=str(path)) from error


def read_command_options(path: Path) -> dict[str, Any]:
    """Read the options of the command itself, those of `COMMAND_OPTIONS`; raise ConfigError for a wrong kind."""
    found = {name: value for name, value in read_toml(path).items() if name in COMMAND_OPTIONS}
    rules = {str: "must be a string in quotes", bool: "must be true or false"}
    wrong = {name: value for name, value in found.items() if type(value) is not COMMAND_OPTIONS[name]}
    if wrong:
        mistakes = [f"{name}: {rules[COMMAND_OPTIONS[name]]}, got {described(value)}" for name, value in wrong.items()]
        raise ConfigError(mistakes, source=str(path))
    return found


def _text(content: bytes) -> str:
    """Decode a config file; raise ValueError with the remedy if it is not UTF-8."""
    if content.startswith(_OTHERS) or b"\0" in content[:4]:
        raise ValueError("the file is UTF-16 or UTF-32, and TOML is UTF-8: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"the text is not UTF-8 (at line {line}): save it as UTF-8") from None


def toml_mistake(item: Mapping[str, Any], default: object) -> str | None:
    """Describe in TOML's terms a value of the wrong type; return None if its type is right.

    `item` is a mistake as pydantic reports it; `default` is the setting's default, for the example of an array.
    """
    if not item["loc"]:
        return None
    name, *places = item["loc"]
    if item["type"] == "extra_forbidden" and isinstance(item["input"], dict):
        return f"{printable(name)}: unknown table; settings go at the top of the file, not below [{printable(name)}]"
    if item["type"] == "tuple_type":
        rule = f"must be an array, such as {name} = {_example(item['input'], default)}"
    elif item["type"] in ("too_short", "too_long") or (item["type"] == "missing" and places):
        least = item.get("ctx", {}).get("min_length")
        rule = f"must have {'2 items, the lowest and the highest' if least is None else f'at least {least} item'}"
        places = []
    elif item["type"] in _RULES:
        rule = _RULES[item["type"]]
    else:
        return None
    where = f"{name}, item {places[0] + 1}" if places else str(name)
    return f"{where}: {rule}, got {described(item['input'])}"


def _example(given: object, default: object) -> str:
    """Return an example array that holds the given value, or the default if the array needs several items."""
    return written(default) if isinstance(default, tuple) and len(default) > 1 else written([given])


def described(value: object) -> str:
    """Return a value in TOML notation, after its type."""
    kind = next((name for types, name in _KINDS if isinstance(value, types)), type(value).__name__)
    return f"the {kind} {written(value)}" if kind != "table" else "a table"


def written(value: object) -> str:
    """Return a value in TOML notation, on one line and printable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return printable(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{printable(key)} = {written(item)}" for key, item in value.items()) + "}"
    return repr(value) if isinstance(value, int | float) and not math.isinf(value) else str(value)
