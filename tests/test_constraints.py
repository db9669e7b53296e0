"""constraints.txt pins every package that the project needs, with the hashes of its files."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINNED = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(?: ;[^\n\\]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
                    (ROOT / "constraints.txt").read_text(), re.M)  # fmt: skip


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()


def test_every_dependency_is_pinned_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for name, group in project["optional-dependencies"].items() if name != "dashboard" for one in group]
    wanted = {_name(one) for one in (*project["dependencies"], *extras)}
    assert wanted
    assert wanted - {_name(name) for name, _, _ in PINNED} == set()


def test_nothing_is_unpinned_or_names_a_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    heads = [line for line in lines if not line.startswith("    --hash=sha256:")]
    assert len(heads) == len(PINNED) > 40
    assert [line for line in lines if "://" in line or line.startswith("-")] == []
