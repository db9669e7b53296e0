"""Config files as editors save them, and mistakes told in the words of the file."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_pt.config import SearchConfig, TrainConfig, make
from automl_pt.core.config_files import described, read_toml, written
from automl_pt.core.errors import ConfigError


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_bytes(codecs.BOM_UTF8 + 'dataset = "été"\r\nepochs = 1\r\n'.encode())
    assert read_toml(path) == {"dataset": "été", "epochs": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('dataset = "x"'.encode("utf-16"), "save it as UTF-8"),
        ('dataset = "x"'.encode("utf-16-be"), "save it as UTF-8"),
        ('dataset = "x"'.encode("utf-32"), "save it as UTF-8"),
        ('epochs = 1\ndataset = "é"'.encode("latin-1"), "not UTF-8 (at line 2)"),
        (b"x = " + b"[" * 5000, "nested too deep"),
        (b"x = " + b"9" * 5000, "limit"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert message in str(caught.value)
    assert "odd.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("batch_sizes = 16", "batch_sizes: must be an array, such as batch_sizes = [16], got the integer 16"),
        ("lr = 0.1", "lr: must be an array, such as lr = [0.0001, 1.0], got the float 0.1"),
        ("lr = [0.1]", "lr: must have 2 items, the lowest and the highest, got the array [0.1]"),
        ('batch_sizes = [8, "x"]', 'batch_sizes, item 2: must be an integer, got the string "x"'),
        ("batch_sizes = []", "batch_sizes: must have at least 1 item, got the array []"),
        ("trials = [1]", "trials: must be an integer, got the array [1]"),
        ('trials = "4"', 'trials: must be an integer, got the string "4"'),
        ("timeout = true", "timeout: must be a number, got the boolean true"),
        ('val_fraction = "0.2"', 'val_fraction: must be a number, got the string "0.2"'),
        ("pretrained = 1", "pretrained: must be true or false, got the integer 1"),
        ("name = 1979-05-27", "name: must be a string in quotes, got the date or time 1979-05-27"),
        ("dataset = {a = 1}", "dataset: must be a string in quotes, got a table"),
        ("[study]\ntrials = 1", "study: unknown table; settings go at the top of the file, not below [study]"),
    ],
)
def test_wrong_types_are_told_in_tomls_words(tmp_path: Path, line: str, mistake: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(("" if line.startswith("dataset") else 'dataset = "d"\n') + line)
    with pytest.raises(ConfigError) as caught:
        make(SearchConfig, read_toml(path), source=str(path), toml=True)
    assert caught.value.mistakes == (mistake,)


@pytest.mark.parametrize("value", [True, "0.5"])
def test_a_truth_value_or_a_text_is_not_taken_for_a_number(value: object) -> None:
    with pytest.raises(ConfigError, match="lr: should be a valid number"):
        make(TrainConfig, {"dataset": "d", "lr": value})


@given(st.recursive(st.booleans() | st.integers() | st.floats() | st.text(), lambda item: st.lists(item, max_size=3)))
def test_any_value_is_shown_on_one_line(value: object) -> None:
    assert "\n" not in described(value)
    assert not {"\n", "\r", "\x1b", "\u2028"} & set(written(value))
