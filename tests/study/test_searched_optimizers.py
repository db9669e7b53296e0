"""Searches among optimisers and augmentations: names that plugins register, and ranges that depend on the name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search_images import search as search_images
from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.config import SearchConfig, make
from automl_pt.core.errors import ConfigError, StudyError, UnknownNameError
from automl_pt.plugins.manager import load_plugins
from automl_pt.reporting.sections.repeat import study_repeat
from automl_pt.reporting.sections.space import space_section
from automl_pt.reporting.study import read_study
from automl_pt.study import events
from automl_pt.study.records import StudyResult
from automl_pt.study.space.next_trial import trial_settings
from automl_pt.study.space.sampler import STARTUP, suggest
from automl_pt.study.space.space import Space, make_space, optimizer_spaces

PLUGINS = load_plugins()
OPTIMIZERS = "optimizer=sgd,adamw,schedule-free-adamw"
RANGES = {
    False: {"sgd": (1e-4, 1.0), "adamw": (3e-5, 1e-2), "schedule-free-adamw": (1e-4, 3e-2)},
    True: {"sgd": (3e-4, 3e-2), "adamw": (1e-5, 1e-3), "schedule-free-adamw": (3e-5, 3e-3)},
}


def config(**given: Any) -> SearchConfig:
    return make(SearchConfig, {"dataset": "plain", "epochs": 5, "trials": 6, "workers": 0, **given})


def space_of(asked: SearchConfig) -> Space:
    return make_space(asked, 2000, optimizers=optimizer_spaces(asked, PLUGINS))


def search(directory: Path, **given: Any) -> tuple[StudyResult, list[events.Event]]:
    told = list(steps(config(**given), directory, objective=TOY))
    assert isinstance(told[-1], events.Finished)
    return told[-1].result, told


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        ("optimizer", "optimizer needs two or more names separated by commas, each of an optimizer, got 'optimizer'"),
        ("optimizer=sgd", "optimizer has one value, sgd: nothing to search; it needs two or more names"),
        ("optimizer=sgd:adamw", "optimizer has no range; it needs two or more names"),
        ("augmentation=crop,crop", "augmentation has a value twice"),
        (
            "objective=accuracy,macro_f1",
            "objective cannot be searched, because all trials of a study are ranked by one",
        ),
        ("class_weights=none,cat=2", "class_weights cannot be searched among cat=2; it needs two or more of none, bal"),
    ],
)
def test_a_wrong_entry_of_names_is_told(entry: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(search=[entry])
    assert mistake in caught.value.mistakes[0]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {"search": ["optimizer=sgd,adamv"]},
            UnknownNameError,
            r"unknown optimizer 'adamv'\n.*'adamv'\n.*did you mean 'adamw'",
        ),
        (
            {"search": ["augmentation=none,crop+mixap"]},
            UnknownNameError,
            r"unknown augmentation 'mixap'\n.*'mixap'\n.*'mixup'",
        ),
        ({"augmentation": "corp"}, UnknownNameError, r"unknown augmentation 'corp'\n.*'corp'\n.*'crop'"),
        (
            {"search": ["optimizer=sgd,schedule-free-adamw"], "momentum": 0.0},
            ConfigError,
            "schedule-free-adamw needs one above 0",
        ),
    ],
)
def test_a_name_that_nobody_registers_is_told_before_anything_is_read(
    tmp_path: Path, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        list(steps(config(**given, dataset="/no/such/folder"), tmp_path / "study"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pretrained", [False, True])
def test_each_optimizer_has_its_own_rates_and_published_settings(pretrained: bool) -> None:
    asked = config(search=[OPTIMIZERS, "momentum=0.8:0.95"], weight_decay=0.5).for_start(pretrained=pretrained)
    space = space_of(asked)
    assert {name: own.lr for name, own in space.optimizers.items()} == RANGES[pretrained]
    assert space.default() == {"lr": 0.001, "batch_size": 16, "optimizer": "sgd", "momentum": 0.9}
    assert "3e-05 to 0.01 with adamw" in space.text() or pretrained
    for name, schedule in (("sgd", "cosine"), ("adamw", "cosine"), ("schedule-free-adamw", "constant")):
        params = {"lr": 1e-3, "batch_size": 16, "optimizer": name, "momentum": 0.85}
        made = asked.trial(**trial_settings(space, 1, params))
        assert (made.optimizer, made.schedule, made.momentum, made.weight_decay) == (name, schedule, 0.85, 0.5)
    plain = trial_settings(space_of(config()), 1, {"lr": 0.1, "batch_size": 16})
    assert config().trial(**plain).optimizer == "sgd"


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({"optimizer": "adamw"}, {"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.01}),
        ({"lr": (0.01, 0.1)}, {"optimizer": "sgd", "lr": 0.01, "weight_decay": 1e-4}),
        ({"optimizer": "adamw", "weight_decay": 1e-3}, {"optimizer": "adamw", "lr": 0.001, "weight_decay": 1e-3}),
    ],
)
def test_trial_0_is_the_optimizer_that_is_set(given: dict[str, Any], first: dict[str, Any]) -> None:
    asked = config(search=[OPTIMIZERS, "weight_decay=1e-6:1e-1"], **given)
    assert space_of(asked).default() == {**first, "batch_size": 16}
    if "lr" in given:
        assert {own.lr for own in space_of(asked).optimizers.values()} == {(0.01, 0.1)}


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 24), st.integers(0, 2**40), st.booleans())
def test_every_point_is_in_the_range_of_its_optimizer(number: int, seed: int, pretrained: bool) -> None:
    space = space_of(config(search=[OPTIMIZERS]).for_start(pretrained=pretrained))
    known = {one: suggest(space, {}, [], seed=seed, number=one) for one in range(min(number, STARTUP))}
    found = suggest(space, known, list(known), seed=seed, number=number)
    low, high = RANGES[pretrained][found["optimizer"]]
    assert low <= found["lr"] <= high
    assert space.fault(found) is None
    other = {**found, "lr": 0.5, "optimizer": "adamw"}
    assert "lr 0.5, which is not from" in str(space.fault(other))


def test_the_sampler_compares_places_in_the_ranges() -> None:
    """Whatever the optimiser, the middle of its range is best here: the sampler has to find it for all at once."""
    space = space_of(config(search=[OPTIMIZERS], batch_sizes=(16,)))

    def off(params: dict[str, Any]) -> float:
        low, high = RANGES[False][params["optimizer"]]
        return abs(math.log(params["lr"] / low) / math.log(high / low) - 0.5)

    known: dict[int, dict[str, Any]] = {}
    for number in range(30):
        ranking = sorted(known, key=lambda one: off(known[one]))
        known[number] = suggest(space, known, ranking, seed=3, number=number)
    late = [off(known[number]) for number in range(STARTUP, 30)]
    assert sum(late) / len(late) < 0.2  # 0.25 by chance
    assert len({one["optimizer"] for one in known.values()}) == 3


def test_a_study_of_optimizers_resumes_and_is_reported(tmp_path: Path) -> None:
    result, told = search(tmp_path / "toy", search=[OPTIMIZERS], trials=10)
    assert {trial.params["optimizer"] for trial in result.trials} == set(RANGES[False])
    notes = [event.text for event in told if isinstance(event, events.Notice)]
    assert "optimizer adamw: momentum 0.9, weight_decay 0.01 are its published values, because none is given" in notes
    report = read_study(tmp_path / "toy")
    assert report.lr_ranges == RANGES[False]
    assert "0.0001 to 1 with sgd, 3e-05 to 0.01 with adamw" in str(report.searched)
    assert {"lr", "optimizer"} <= set(space_section(report)["importance"]["shares"])
    assert "place in the range" in space_section(report)["importance"]["note"]
    [command] = study_repeat(report)["commands"]
    assert not [line for line in command["lines"] if line.startswith(("lr ", "weight_decay"))]
    assert 'search = ["optimizer=sgd,adamw,schedule-free-adamw"]' in command["lines"]
    assert len(search(tmp_path / "toy", search=[OPTIMIZERS], trials=11)[0].trials) == 11
    with pytest.raises(StudyError, match="settings of the optimizer adamw was .* and is"):
        search(tmp_path / "toy", search=[OPTIMIZERS], trials=12, weight_decay=1e-4)


def test_real_trials_run_with_their_own_optimizer_and_augmentation(tiny_folder: Path, tmp_path: Path) -> None:
    entries = ("optimizer=sgd,adamw", "augmentation=none,crop")
    given: dict[str, Any] = {"search": entries, "rivals": ("schedule-free-adamw",), "keep_models": 6}
    result = search_images(tiny_folder, tmp_path / "study", trials=5, epochs=1, **given)
    rival = json.loads((tmp_path / "study" / "trials" / "1" / "run.json").read_text())["config"]
    assert (rival["optimizer"], rival["lr"], rival["schedule"]) == ("schedule-free-adamw", 2.5e-3, "constant")
    assert result.gain is not None
    assert result.gain.gained_nothing or result.gain.standard_error is not None
    for trial in (one for one in result.trials if one.rival is None):
        made = json.loads((tmp_path / "study" / "trials" / str(trial.number) / "run.json").read_text())["config"]
        assert (made["optimizer"], made["augmentation"]) == (trial.params["optimizer"], trial.params["augmentation"])
        assert made["weight_decay"] == (1e-4 if made["optimizer"] == "sgd" else 1e-2)
    assert {trial.params["optimizer"] for trial in result.trials} == {"sgd", "adamw", "schedule-free-adamw"}
    assert {trial.params["augmentation"] for trial in result.trials} == {"none", "crop"}
    assert result.model is not None
