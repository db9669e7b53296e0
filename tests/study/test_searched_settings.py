from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.cli.report import command as report
from automl_pt.config import SHARED, SearchConfig, Settings, TrainConfig, make
from automl_pt.core.config_files import read_toml
from automl_pt.core.errors import ConfigError, StudyError
from automl_pt.core.search_entries import searchable
from automl_pt.reporting.sections.space import importance
from automl_pt.reporting.study import read_study
from automl_pt.study import events
from automl_pt.study.executor.base import TrialSpec
from automl_pt.study.executor.inline import InlineEngine
from automl_pt.study.executor.trial_run import PER_TRIAL
from automl_pt.study.records import StudyResult, TrialRecord
from automl_pt.study.space.sampler import suggest
from automl_pt.study.space.space import Space, make_space

ENTRIES = ("weight_decay=1e-6:1e-2", "label_smoothing=0:0.2", "schedule=cosine,step", "freeze_groups=0:3")


def config(**given: Any) -> SearchConfig:
    return make(SearchConfig, {"dataset": "plain", "epochs": 9, "trials": 6, "workers": 0, **given})


def search(directory: Path, **given: Any) -> tuple[StudyResult, list[events.Event]]:
    told = list(steps(config(**given), directory, objective=TOY))
    assert isinstance(told[-1], events.Finished)
    return told[-1].result, told


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("weight_decay=1e-6:1e-2", "weight_decay=1e-06:0.01:log"),
        ("weight_decay=1e-4:1e-3", "weight_decay=0.0001:0.001:linear"),
        ("weight_decay=1e-4:1e-3:log", "weight_decay=0.0001:0.001:log"),
        ("weight_decay = 1e-6 : 1 : linear", "weight_decay=1e-06:1.0:linear"),
        ("label_smoothing=0:0.2", "label_smoothing=0.0:0.2:linear"),
        ("freeze_groups=0:3", "freeze_groups=0:3:linear"),
        ("schedule=step,cosine", "schedule=step,cosine"),
        ("class_weights", "class_weights=none,balanced"),
        ("clip_grad_norm=none,1,5", "clip_grad_norm=none,1.0,5.0"),
        ("weight_decay=0,1e-4", "weight_decay=0.0,0.0001"),
    ],
)
def test_an_entry_names_a_field_and_what_it_tries(entry: str, text: str) -> None:
    assert [found.text() for found in config(search=[entry]).entries] == [text]


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        ("wieght_decay=0:1", "'wieght_decay' is not a setting of a run; did you mean 'weight_decay'"),
        ("wibble=0:1", "'wibble' is not a setting of a run; searched can be augment"),
        ("trials=1:3", "trials is a setting of the search, not of a run"),
        ("epochs=1:5", "epochs cannot be searched, because trials of other lengths cannot be compared"),
        ("dataset=a,b", "dataset cannot be searched, because all trials of a study train and validate on the same"),
        ("backbone_options=a,b", "backbone_options cannot be searched, because it is neither a number nor a choice"),
        ("label_smoothing=0:1.5", "label_smoothing should be less than 1, got 1.5; it needs LOW:HIGH, or values"),
        ("label_smoothing=", "with numbers at least 0 and below 1, got 'label_smoothing='"),
        ("momentum=0.9", "momentum has one value, 0.9: nothing to search; it needs"),
        ("momentum=0.9:0.5", "momentum must go from low to high, got 0.9:0.5"),
        ("momentum=0.1,0.1", "momentum has a value twice, got '0.1,0.1'"),
        ("momentum=0:0.5:log", "momentum needs a low end above 0 for a log scale"),
        ("momentum=0:0.5:cubic", "momentum needs LOW:HIGH, LOW:HIGH:log or LOW:HIGH:linear"),
        ("schedule=cosin,step", "got cosin; it needs two or more of constant, step, polynomial, cosine, separated"),
        ("schedule=cosin,step", "did you mean 'cosine'?"),
        ("schedule=step:cosine", "schedule has no range; it needs two or more of constant, step"),
        ("freeze_groups=0:2.5", "freeze_groups should be a valid integer, got 2.5"),
        ("warmup_epochs=0:9", "warmup_epochs must be below epochs, got 9 and 9"),
        ("lr=a:b", "lr is searched on a log scale, LOW:HIGH such as 1e-4:1.0"),
        ("batch_size=a", "batch_size takes sizes such as 8,16,32"),
    ],
)
def test_a_wrong_entry_is_told_with_the_limits_of_its_field(entry: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(search=[entry])
    assert len(caught.value.mistakes) == 1
    assert caught.value.mistakes[0].startswith("search: ")
    assert mistake in caught.value.mistakes[0]


def test_all_wrong_entries_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config(search=["momentum=2:3", "schedule=a,b", "class_weights", "class_weights"], trials=0)
    assert len(caught.value.mistakes) == 3 + 1


def test_learning_rate_and_batch_size_go_through_the_same_entries() -> None:
    found = config(search=["lr=1e-3:0.1", "batch_size=8:40", "backbone=a,b", "class_weights"])
    assert (found.lr, found.batch_sizes, found.backbones) == ((1e-3, 0.1), (8, 16, 32), ("a", "b"))
    assert found.search == ("class_weights",)
    with pytest.raises(ConfigError, match="lr is searched on a log scale, .* given once, here or by --lr"):
        config(search=["lr=1e-3:0.1"], lr=(1e-4, 1.0))


def test_a_table_of_a_config_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "search.toml"
    path.write_text(
        'dataset = "plain"\n[search]\nweight_decay = "1e-6:1e-2"\nlabel_smoothing = [0, 0.2]\n'
        'schedule = ["cosine", "step"]\nfreeze_groups = "0:3"\nclass_weights = true\n'
    )
    found = make(SearchConfig, read_toml(path), toml=True)
    assert found.entries == config(search=[*ENTRIES, "class_weights"]).entries
    assert make(SearchConfig, found.model_dump()).entries == found.entries


def test_the_points_of_the_start_are_those_of_earlier_versions() -> None:
    space = Space((1e-4, 1.0), (8, 16, 32, 64), ("resnet18",))
    found = [suggest(space, {}, [], seed=1, number=number) for number in (1, 2, 9)]
    assert [(one["lr"].hex(), one["batch_size"]) for one in found] == [
        ("0x1.4766d9e9623c6p-11", 32),
        ("0x1.3fba70cde9ee9p-1", 8),
        ("0x1.231b1cb1c76b1p-10", 16),
    ]
    wider = make_space(config(search=ENTRIES, batch_sizes=(8, 16, 32, 64)), 1000)
    assert [suggest(wider, {}, [], seed=1, number=number)["lr"] for number in (1, 2, 9)] == [one["lr"] for one in found]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 14), st.integers(0, 2**40), st.lists(st.sampled_from(ENTRIES), unique=True))
def test_every_suggestion_is_a_valid_run(number: int, seed: int, entries: list[str]) -> None:
    asked = config(search=entries)
    space = make_space(asked, 1000)
    known = {one: space.default() for one in range(number)}
    found = suggest(space, known, list(known), seed=seed, number=number)
    assert all(dimension.holds(found[dimension.name]) for dimension in space.extra)
    trial = asked.trial(backbone="a", lr=0.1, batch_size=8, seed=1, searched=space.settings(found))
    assert all(getattr(trial, name) == value for name, value in space.settings(found).items())


@pytest.mark.parametrize(
    ("given", "first"),
    [({}, 1e-4), ({"weight_decay": 5e-4}, 5e-4), ({"weight_decay": 1.0}, 1e-2), ({"weight_decay": 0.0}, 1e-6)],
)
def test_trial_0_has_the_value_that_the_setting_has_otherwise(given: dict[str, float], first: float) -> None:
    assert make_space(config(search=ENTRIES[:1], **given), 1000).default()["weight_decay"] == first


def test_a_trial_runs_with_what_was_searched_and_it_is_shown_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[TrialSpec] = []
    start = InlineEngine.start
    monkeypatch.setattr(InlineEngine, "start", lambda self, spec: (started.append(spec), start(self, spec))[1])
    result, told = search(tmp_path / "toy", search=ENTRIES, trials=10)
    names = {"weight_decay", "label_smoothing", "schedule", "freeze_groups"}
    for spec in started:
        params = result.trials[spec.number].params
        assert {name: getattr(spec.config, name) for name in names} == {name: params[name] for name in names}
    assert len({trial.params["weight_decay"] for trial in result.trials}) == 10
    first = next(event for event in told if isinstance(event, events.StudyStarted))
    assert "weight_decay 1e-06 to 0.01 (log scale); label_smoothing 0 to 0.2 (linear scale); schedule cosine" in (
        first.searched
    )
    assert read_study(tmp_path / "toy").searched == first.searched
    shown = CliRunner().invoke(report, [str(tmp_path / "toy")], standalone_mode=False).stdout
    assert "weight_decay 1e-06 to 0.01" in " ".join(shown.split())
    assert "what mattered, by fANOVA of" in shown


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        ([*ENTRIES], None),
        (["weight_decay=1e-7:1e-2", *ENTRIES[1:]], None),
        (["weight_decay=1e-5:1e-2", *ENTRIES[1:]], "weight_decay was searched as 1e-06:0.01:log and is searched as 1e"),
        (ENTRIES[1:], "weight_decay was searched as 1e-06:0.01:log and is not searched"),
        ([*ENTRIES, "momentum=0:0.9"], "momentum was not searched and is searched as 0.0:0.9:linear"),
        ([*ENTRIES[:2], "schedule=cosine,step,constant", ENTRIES[3]], "schedule was searched as cosine,step and is"),
    ],
)
def test_a_study_resumes_with_what_was_searched(tmp_path: Path, now: list[str], difference: str | None) -> None:
    search(tmp_path / "toy", search=ENTRIES, trials=2)
    if difference is None:
        assert len(search(tmp_path / "toy", search=now, trials=3)[0].trials) == 3
        return
    with pytest.raises(StudyError) as caught:
        search(tmp_path / "toy", search=now, trials=3)
    assert difference in caught.value.given


def test_a_study_of_an_earlier_version_resumes(tmp_path: Path) -> None:
    from automl_pt.study.store.backends import close_storage, default_url, open_storage

    search(tmp_path / "toy", trials=2)
    storage = open_storage(default_url(tmp_path / "toy"))
    study_id = storage.get_study_id_from_name("toy")
    about = dict(storage.get_study_user_attrs(study_id)["automl_pt"])
    assert about.pop("search") == []
    about.pop("searched")
    storage.set_study_user_attr(study_id, "automl_pt", about)
    close_storage(storage)
    assert len(search(tmp_path / "toy", trials=3)[0].trials) == 3


def test_data_are_prepared_from_no_setting_that_trials_may_differ_in() -> None:
    """A worker prepares the data once for all trials: the settings of one of them must not reach it."""
    source = (Path(__file__).parents[2] / "automl_pt" / "data" / "prepare.py").read_text()
    read = {name for name in TrainConfig.model_fields if f"settings.{name}" in source}
    assert "val_fraction" in read
    assert read & set(searchable(TrainConfig, SHARED)) == set()
    assert set(PER_TRIAL) >= {"seed", "lr", "batch_size", "backbone", *searchable(TrainConfig, SHARED)}
    assert set(SHARED) <= set(Settings.model_fields)


def test_importance_tells_of_an_interaction() -> None:
    trials, losses = [], {}
    for number in range(32):
        one, other = (number % 8) / 7, (number // 8) / 3
        params = {"lr": 10**-one, "batch_size": 8, "momentum": other}
        trials.append(TrialRecord(number, "COMPLETE", params, 0.0, 1, 1.0, "completed", {}))
        losses[number] = math.fabs(one - other)
    found = importance(trials, losses)
    assert set(found["shares"]) == {"lr", "momentum"}
    [(first, second, share)] = found["interactions"]
    assert {first, second} == {"lr", "momentum"}
    assert share > 0.3
    assert json.dumps(found)
