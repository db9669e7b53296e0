"""One reader of JSON for all that the program reads back, with one way to fail."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_pt.core.json_reader import MAX_DEPTH, JsonError, parse_json, read_json, read_json_lines

PACKAGE = Path(__file__).parents[2] / "automl_pt"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_writes_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value).encode()) == value


REFUSED = {
    "900 deep": (b"[" * 900 + b"]" * 900, "nested deeper"),
    "objects": (b'{"a":' * 99 + b"1" + b"}" * 99, "nested deeper"),
    "beyond Python": (b"[" * 99_999, "nested deeper"),
    "cut": (b'{"a": ', "Expecting value"),
    "nothing": (b"", "Expecting value"),
    "a key twice": (b'{"a": 1, "a": 2}', "a key occurs twice"),
    "NaN": (b"[NaN]", "NaN is not a JSON number"),
    "infinity": (b"[-Infinity]", "-Infinity is not a JSON number"),
    "1e999": (b"[1e999]", "too large"),
    "digits": (b"1" * 5000, "limit"),
    "not UTF-8": (b'"\xff"', "can't decode"),
    "UTF-16": ("[1]".encode("utf-16"), "can't decode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_fails_in_one_way(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(JsonError, match=message) as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_depth_size_and_number_of_values_have_limits(tmp_path: Path) -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(JsonError, match="more than 3 values"):
        parse_json("[1, 2, 3]", max_values=3)
    (tmp_path / "x").write_text("[1, 2, 3]")
    with pytest.raises(JsonError, match="it has 9 bytes; 8 are allowed"):
        read_json(tmp_path / "x", max_bytes=8)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(JsonError, match="not a regular file"):
        read_json_lines(tmp_path / "run.json")
    with pytest.raises(JsonError, match="not a regular file"):
        read_json(Path("/dev/zero"))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_else_reads_json(path: Path) -> None:
    names = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert path.name == "json_reader.py" or not {"json.load", "json.loads", "JSONDecoder"} & names
