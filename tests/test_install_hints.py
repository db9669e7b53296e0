"""Every hint on installing can be run as it is written: automl-pt is on no package index."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from automl_pt.core.installation import how_to_install, packages_of

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in ("automl_pt", "docs", "plugins", "benchmarks", "studies")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".toml", ".html", ".js", ".j2") and path.is_file()
} | {path.name: path.read_text() for path in sorted(ROOT.glob("*.md"))}

#: automl-pt or one of its plugins by name, after a word that installs; a path (./, ~/ or plugins/) is another thing
INSTALLS = re.compile(
    r"(?:pip3? install|uv add|uv tool install|uvx|uv tool run|pipx install|pipx run)(?P<words>[^\n`]*)", re.IGNORECASE
)
BY_NAME = re.compile(r"(?<![\w/.~-])automl[-_]pt(?:-(?!NAME)\w+)?(?![\w/.-]|(?:\[[\w,]+\])?\s*@)")


def faults(text: str) -> list[str]:
    found = [hit[0] for hit in re.finditer(r"automl-pt\[\w+(?:,\w+)*\](?!\s*@)", text)]
    return found + [hit[0] for hit in INSTALLS.finditer(text) if BY_NAME.search(_words(hit["words"]))]


def _words(line: str) -> str:
    """Return the words of the command itself: no comment, no further command, no sentence after it."""
    return re.split(r"\s#|&&|;|, then|\)|\bfails\b", line)[0]


@pytest.mark.parametrize("name", TEXTS)
def test_no_hint_names_what_no_index_has(name: str) -> None:
    if name == "automl_pt/core/installation.py":  # says why it does not
        return
    assert faults(TEXTS[name]) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("pip install 'automl-pt[serve]'", 2),
        ("the extra `automl-pt[ray]`", 1),
        ("`pip install automl-pt` brings it", 1),
        ("uvx automl-pt search photos", 1),
        ("pip install automl-pt-lite==0.1", 1),
        ("pip install 'automl-pt[serve] @ git+https://example.org/x'", 0),
        ("pip install '.[serve]' ./plugins/automl-pt-lite  # in the checkout of automl-pt", 0),
        ("uv pip install -q ~/automl-pt pytest", 0),
        ("pip install ., then `automl-pt doctor`", 0),
    ],
)
def test_the_check_above_finds_faults(text: str, count: int) -> None:
    assert len(faults(text)) == count


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_message_names_the_packages_of_the_extra(extra: str) -> None:
    command = re.fullmatch(r"`(pip install .*)`", how_to_install(extra))
    assert command is not None
    assert sorted(shlex.split(command[1])[2:]) == sorted(EXTRAS[extra])


def test_an_extra_that_is_not_known_is_installed_from_the_checkout() -> None:
    assert packages_of("no-such") == []
    assert how_to_install("no-such") == "`pip install '.[no-such]'` in the checkout of automl-pt"


def test_extras_in_documents_exist() -> None:
    named = {
        name for text in TEXTS.values() for hit in re.findall(r"'\.\[([\w,]+)\]'", text) for name in hit.split(",")
    }
    assert named
    assert named <= set(EXTRAS)
