"""`train` and `search` have every setting as a keyword, with its default and its text, and pass on what is given."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import jedi
import pytest

import automl_pt
from automl_pt.config import SearchConfig, Settings, TrainConfig, make
from automl_pt.core.errors import ConfigError
from automl_pt.interactive.calls import declares

CALLS: dict[str, type[Settings]] = {"train": TrainConfig, "search": SearchConfig}
#: parameters of the calls themselves
OWN = {"train": {"output", "plugins", "show"}, "search": {"on_event", "plugins", "show"}}


def parameters(call: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(automl_pt, call)).parameters)


@pytest.mark.parametrize("call", CALLS)
def test_the_keywords_are_the_settings(call: str) -> None:
    found, fields = parameters(call), CALLS[call].model_fields
    assert found.keys() == fields.keys() | OWN[call]
    defaults = {name: found[name].default for name in fields if name != "dataset"}
    assert defaults == {name: None if name == "plugins" else fields[name].default for name in defaults}
    kinds = {one.kind for name, one in found.items() if name != "dataset"}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("call", CALLS)
def test_the_help_has_the_text_of_every_setting(call: str) -> None:
    shown = inspect.getdoc(getattr(automl_pt, call)) or ""
    wanted = [f"{name}: {field.description}" for name, field in CALLS[call].model_fields.items() if name != "dataset"]
    assert [line for line in wanted if line not in shown] == []


@pytest.mark.parametrize("call", CALLS)
def test_an_editor_and_a_notebook_complete_every_setting(call: str) -> None:
    source = f"from automl_pt import {call}\n{call}('digits', "
    in_an_editor = {one.name for one in jedi.Script(source).complete()}
    known = [{call: getattr(automl_pt, call)}]
    in_a_notebook = {one.name for one in jedi.Interpreter(f"{call}('digits', ", known).complete()}
    wanted = {f"{name}=" for name in parameters(call) if name != "dataset"}
    assert wanted - in_an_editor == set()
    assert wanted - in_a_notebook == set()


@pytest.mark.parametrize("call", CALLS)
def test_all_mistakes_are_named_with_what_was_meant(call: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(automl_pt, call)("digits", epoch=3, patience=0)
    assert sorted(caught.value.mistakes) == [
        "epoch: unknown setting; did you mean 'epochs'?",
        "patience: should be greater than 0, got 0",
    ]


def test_only_what_is_given_is_passed_on_and_paths_become_texts() -> None:
    taken: list[Any] = []

    def function(*arguments: Any, **given: Any) -> None:
        taken.append((arguments, given))

    @declares(function, TrainConfig)
    def call(dataset: str, *, lr: float = 0.001, root: Path | None = None) -> None:
        """Call it."""

    call("digits")
    call("digits", lr=0.001, root=Path("a"))
    assert taken == [(("digits",), {}), (("digits",), {"lr": 0.001, "root": "a"})]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TrainConfig, "class_weights", {"cat": 2.0}),
        (SearchConfig, "search", {"momentum": [0.5, 0.9]}),
        (SearchConfig, "search", "momentum=0.5:0.9"),
        (SearchConfig, "rivals", "adamw,sgd"),
        (SearchConfig, "max_params", "10M"),
        (SearchConfig, "backbones", ["resnet18"]),
    ],
)
def test_what_the_signature_allows_the_settings_take(kind: type[Settings], name: str, value: Any) -> None:
    assert name in make(kind, {"dataset": "digits", name: value}).model_fields_set


def test_dir_shows_what_is_public() -> None:
    shown = [name for name in dir(automl_pt) if not name.startswith("_")]
    assert sorted(shown) == sorted(automl_pt.__all__)
    assert (Path(automl_pt.__file__).parent / "py.typed").exists()
