"""Every committed study definition is valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl_pt.config import SearchConfig, make
from automl_pt.core.config_files import read_toml

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "studies").glob("*/study.toml"))


def test_there_are_studies() -> None:
    assert {path.parent.name for path in STUDIES} >= {"digits", "my-images"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_definition_is_valid_and_named_after_its_folder(path: Path) -> None:
    config = make(SearchConfig, read_toml(path), source=str(path))
    assert config.name == path.parent.name


def test_the_template_says_what_each_setting_is() -> None:
    text = (ROOT / "studies" / "my-images" / "study.toml").read_text()
    settings = read_toml(ROOT / "studies" / "my-images" / "study.toml")
    assert len(settings) >= 8
    assert text.count("#") >= 10
