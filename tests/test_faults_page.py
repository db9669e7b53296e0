"""The page of faults: every row of the two tables is there, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reference" / "faults.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)))
ROWS = [line.split("|") for line in PAGE.splitlines() if re.match(r"\| [AB]\d", line)]


def test_the_tests_that_are_named_exist() -> None:
    assert len(NAMED) > 100
    known = {
        file: {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        for file in {file for file, _ in NAMED}
        if (ROOT / file).exists()
    }
    assert [f"{file}::{name}" for file, name in NAMED if name not in known.get(file, ())] == []


@pytest.mark.parametrize(("table", "last"), [("A", 65), ("B", 77)])
def test_every_row_is_there_once(table: str, last: int) -> None:
    found: list[int] = []
    for _, numbers, *_ in ROWS:
        if table not in numbers:
            continue
        for part in numbers.split(","):
            ends = [int(number) for number in re.findall(rf"{table}(\d+)", part)]
            found += range(ends[0], ends[-1] + 1)
    assert sorted(found) == list(range(1, last + 1))


def test_every_row_says_how_it_was_tried() -> None:
    said = ("`tests/", "by hand", "not tried", "does not arise")
    assert [row[1].strip() for row in ROWS if not any(word in "|".join(row[3:]) for word in said)] == []
