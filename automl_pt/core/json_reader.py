"""The one reader of JSON, for files that the program wrote and for text from outside.

The text is untrusted, because anybody can edit the files of a folder. Text that is too large, nested too deep, not
standard JSON or ambiguous raises JsonError before its values are used.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

#: our own files have at most ten levels; recursive readers of the values stay far below Python's recursion limit
MAX_DEPTH = 64
#: bytes of one file; the manifest of ten million images has about this size
MAX_BYTES = 2 << 30


class JsonError(ValueError):
    """A text is not JSON, or exceeds the limits; the message says why in one line."""


def parse_json(text: str | bytes, *, not_finite: bool = False, max_values: int | None = None) -> Any:
    """Return the values of a JSON text (bytes are UTF-8, with or without a byte order mark), or raise JsonError.

    Duplicate keys, nesting beyond MAX_DEPTH and more than `max_values` values are refused. Numbers that are not finite
    are refused unless `not_finite` is true, because our processes exchange losses, which may be NaN.
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
    """Return the values of a file with one JSON text per line; raises as `read_json` does."""
    return [parse_json(line) for line in read_regular_file(path, max_bytes).splitlines()]


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read a file; raise JsonError for more than `max_bytes`, and for a pipe or device, which could block for ever."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise JsonError("it is not a regular file")
        if status.st_size > max_bytes:
            raise JsonError(f"it has {status.st_size:,} bytes; {max_bytes:,} are allowed")
        return stream.read(status.st_size + 1)  # no more, because this much memory is allocated


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
        raise JsonError("a key occurs twice")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError(f"the number {text[:20]} is too large")
    return number
