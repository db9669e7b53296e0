"""The one reader of JSON: of files that the program wrote earlier, and of text that others send.

Whoever sends a folder can write anything into its files. What is too large, nested too deep, not JSON by the standard
or ambiguous fails in one way, with a JsonError, before the values are used.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

#: no file of ours is nested deeper than ten levels; what walks through values recursively stays far from Python's limit
MAX_DEPTH = 64
#: bytes of one file; the manifest of ten million images has about this size
MAX_BYTES = 2 << 30


class JsonError(ValueError):
    """A text is no JSON that is taken here; the message says in one line why."""


def parse_json(text: str | bytes, *, not_finite: bool = False, max_values: int | None = None) -> Any:
    """Return the values of a JSON text (bytes are UTF-8, with or without a byte order mark), or raise JsonError.

    A key that stands twice, nesting beyond MAX_DEPTH and more than `max_values` values are refused, and so is a number
    that is not finite, unless `not_finite` is true: processes of ours tell each other losses, which may be NaN.
    """
    try:
        content = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        if max_values is not None and _most_values(content) > max_values:
            raise JsonError(f"it holds more than {max_values:,} values")
        rules: dict[str, Any] = {} if not_finite else {"parse_constant": _refuse_constant, "parse_float": _finite}
        value = json.loads(content, object_pairs_hook=_without_duplicates, **rules)
    except JsonError:
        raise
    except RecursionError:
        raise JsonError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise JsonError(" ".join(str(error).split())) from error
    _require_depth(value)
    return value


def read_json(path: Path, *, max_bytes: int = MAX_BYTES, max_values: int | None = None) -> Any:
    """Return the values of a JSON file as `parse_json` does; raise OSError where it cannot be read, else JsonError."""
    return parse_json(read_regular_file(path, max_bytes), max_values=max_values)


def read_json_lines(path: Path, *, max_bytes: int = MAX_BYTES) -> list[Any]:
    """Return the values of a file that holds one JSON text a line; raise as `read_json`."""
    return [parse_json(line) for line in read_regular_file(path, max_bytes).splitlines()]


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read a file; raise JsonError for a pipe or device, which could wait for ever, and for more than `max_bytes`."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise JsonError("it is not a regular file")
        if status.st_size > max_bytes:
            raise JsonError(f"it has {status.st_size:,} bytes; {max_bytes:,} are allowed")
        return stream.read(status.st_size + 1)  # not more: as much memory is taken at once


def _most_values(text: str) -> int:
    """Return an upper bound of the number of values, without parsing."""
    return 1 + text.count(",") + text.count("[") + text.count("{")


def _require_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [one for one in level if isinstance(one, list | dict)]
        if not containers:
            return
        level = [item for one in containers for item in (one.values() if isinstance(one, dict) else one)]
    raise JsonError(f"it is nested deeper than {MAX_DEPTH} levels")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise JsonError("a key stands twice")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError(f"the number {text[:20]} is too large")
    return number
