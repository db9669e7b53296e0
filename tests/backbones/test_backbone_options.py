"""A backbone's own options: given, searched, recorded, kept with the model, and the same again on resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from automl_pt.api.search import run_search
from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model
from automl_pt.backbones.options import defaults, parse, told, with_options
from automl_pt.config import SearchConfig, TrainConfig, make
from automl_pt.core.errors import ConfigError, PluginError, StudyError
from automl_pt.model.load import load_model
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import run
from automl_pt.runs.reproduce import Reproduction
from automl_pt.study.space.dimensions import dimensions
from automl_pt.study.space.sampler import suggest
from automl_pt.study.space.space import Space

PLUGIN = """
from torch import nn
from automl_pt import Backbone, hookimpl

def build(num_classes, pretrained, width=4, dropout=0.1, norm="batch"):
    layers = [nn.Conv2d(3, width, 3), nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(1, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(width * 36, num_classes))

def space(trial):
    trial.suggest_float("dropout", 0.0, 0.5)
    trial.suggest_int("width", 2, {most})
    trial.suggest_categorical("norm", ["batch", "group"])

@hookimpl
def register_backbones():
    return [Backbone(name, build, image_size=8, search_space=space) for name in ("optional", "later")]
"""


def build(num_classes, pretrained, width=4, *, rate=0.1):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Dropout(rate), nn.Linear(width, num_classes))


def net(space=None, **fields):
    return Backbone("mine", build, image_size=8, search_space=space, **fields)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "optional_plugin.py"
    path.write_text(PLUGIN.replace("{most}", "6"))
    return path


@given(st.one_of(st.text(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none()))
def test_a_value_comes_back_as_it_was(value):
    name, back = parse(told("option", value))
    assert (name, type(back), back) == ("option", type(value), value)


def test_options_are_the_arguments_with_a_default():
    assert defaults(net()) == {"width": 4, "rate": 0.1}
    assert defaults(Backbone("c", len)) == {}
    sized = Backbone("sized", lambda classes, pretrained, image_size=3, depth=2: None)
    assert defaults(sized) == {"depth": 2}
    assert defaults(Backbone("partial", partial(build, width=7))) == {"width": 7, "rate": 0.1}


def test_options_reach_the_builder_and_leave_no_recipe():
    found = with_options(net(recipe=lambda classes, size: "model = ..."), ["width=9", "rate=0"])
    model = build_model(found, 2, 8, seed=1)
    assert (model[1].out_features, model[2].p, found.recipe) == (9, 0, None)
    assert with_options(net(), []).build is build


def test_an_option_that_it_has_not():
    with pytest.raises(ConfigError, match=r"(?s)mine has no option 'widht'; did you mean 'width'\?"):
        with_options(net(), ["widht=3"])
    with pytest.raises(ConfigError, match=r"(?s)mine has no option 'zzz'; it has rate, width"):
        with_options(net(), ["zzz=3"])


@pytest.mark.parametrize("options", [("width",), ("=3",), ("a b=3",), ("width=3", "width=4")])
def test_what_is_no_option_is_refused(options):
    with pytest.raises(ConfigError, match="backbone_options: must be NAME=VALUE, each name once"):
        make(TrainConfig, {"dataset": "digits", "backbone_options": options})


def wide(trial):
    assert trial.suggest_int("width", 2, 32, log=True) == 4
    assert trial.suggest_float("rate", 0.0, 0.5) == 0.1


def test_a_space_asks_with_optunas_words_and_is_answered_with_defaults():
    found = dimensions([net(wide)], [])
    assert [(d.name, d.option, d.default) for d in found] == [("width", "width", 4), ("rate", "rate", 0.1)]
    assert [d.name for d in dimensions([net(wide)], ["rate=0.2"])] == ["width"]
    two = dimensions([net(wide), replace(net(), name="other")], [])
    assert [d.name for d in two] == ["mine.width", "mine.rate"]


SPACES = {
    "an option that build does not have": (
        lambda trial: trial.suggest_int("depth", 1, 3),
        "'depth'; build's options are rate",
    ),
    "a default outside": (lambda trial: trial.suggest_int("width", 5, 9), "'width', whose default 4 is not in"),
    "a space that fails": (lambda trial: 1 / 0, "ZeroDivisionError: division by zero"),
    "a range upside down": (lambda trial: trial.suggest_float("rate", 1.0, 0.0), "ValueError"),
}


@pytest.mark.parametrize("fault", SPACES)
def test_a_wrong_space_is_named(fault):
    space, said = SPACES[fault]
    with pytest.raises(
        PluginError, match=rf"(?s)search_space\(trial\) asks.*mine: .*{said}.*with a default in the range"
    ):
        dimensions([net(space)], [])


@pytest.mark.parametrize("number", [0, 3, 11, 12])
def test_every_trial_has_the_options_of_its_own_backbone(number):
    nets = [net(wide), replace(net(), name="plain")]
    space = Space((1e-3, 1.0), (8, 16), ("mine", "plain"), dimensions(nets, []))
    past = {n: space.at([n / 12 % 1] * 5) for n in range(12)}
    found = suggest(space, past, [*past], seed=3, number=number)
    assert ("mine.width" in found) == ("mine.rate" in found) == (found["backbone"] == "mine")
    assert set(space.distributions(found["backbone"])) == set(found)
    assert found == suggest(space, past, [*past], seed=3, number=number)
    if "mine.width" in found:
        assert 2 <= found["mine.width"] <= 32
        assert 0 <= found["mine.rate"] <= 0.5


def test_a_search_without_options_asks_for_what_it_asked_before():
    space = Space((1e-3, 1.0), (8, 16), ("mine",))
    more = replace(space, extra=dimensions([net(wide)], []))
    for number in range(1, 9):
        plain = suggest(space, {}, [], seed=3, number=number)
        assert {name: suggest(more, {}, [], seed=3, number=number)[name] for name in plain} == plain


@pytest.mark.parametrize("unit", [0.0, 0.37, 0.9999999])
def test_points_lie_in_their_ranges(unit):
    def space(trial):
        trial.suggest_float("rate", 0.1, 0.5, step=0.2)
        trial.suggest_int("width", 3, 10, step=1)

    for dimension in (*dimensions([net(space)], []), *dimensions([net(wide)], [])):
        assert dimension.distribution._contains(dimension.distribution.to_internal_repr(dimension.at(unit)))


def test_a_study_searches_records_and_resumes_options(plugin: Path, tiny_folder: Path, tmp_path: Path):
    settings = {"dataset": str(tiny_folder), "plugins": [str(plugin)], "backbones": ["optional"], "epochs": 1}
    settings |= {"report": False, "workers": 0, "batch_sizes": [8], "threads": 1, "device": "cpu", "pruner": "none"}
    first = run_search(make(SearchConfig, {**settings, "trials": 2}), tmp_path / "s")
    params = [trial.params for trial in first.trials]
    assert params[0] == {"lr": 0.001, "batch_size": 8, "width": 4, "dropout": 0.1, "norm": "batch"}
    assert set(params[1]) == {"lr", "batch_size", "width", "dropout", "norm"}

    second = run_search(make(SearchConfig, {**settings, "trials": 3}), tmp_path / "s")
    assert [trial.params for trial in second.trials][:2] == params
    for trial in second.trials:
        record = json.loads((tmp_path / "s" / "trials" / str(trial.number) / "run.json").read_text())
        given = dict(map(parse, record["config"]["backbone_options"]))
        assert given == {name: trial.params[name] for name in ("width", "dropout", "norm")}
    width = load_model(second.model, plugins=load_plugins([str(plugin)])).network[0].out_channels
    assert width == second.best.params["width"]

    plugin.write_text(PLUGIN.replace("{most}", "12"))
    with pytest.raises(StudyError, match=r"(?s)the searched option width was .*\"high\": 6.* and is .*\"high\": 12"):
        run_search(make(SearchConfig, {**settings, "trials": 4}), tmp_path / "s")


def test_a_study_grows_by_a_backbone_with_options_of_its_own(plugin: Path, tiny_folder: Path, tmp_path: Path):
    settings = {"dataset": str(tiny_folder), "plugins": [str(plugin)], "backbones": ["optional"], "epochs": 1}
    settings |= {"report": False, "workers": 0, "batch_sizes": [8], "threads": 1, "device": "cpu", "pruner": "none"}
    first = run_search(make(SearchConfig, {**settings, "trials": 2}), tmp_path / "s")

    more = {**settings, "backbones": ["later", "optional"]}
    second = run_search(make(SearchConfig, {**more, "trials": 12}), tmp_path / "s")
    params = [trial.params for trial in second.trials]
    assert params[:2] == [{"backbone": "optional", **trial.params} for trial in first.trials]
    assert [trial.losses for trial in second.trials[:2]] == [trial.losses for trial in first.trials]
    assert {one["backbone"] for one in params[2:]} == {"optional", "later"}
    for number, one in enumerate(params):
        prefix = "later." if one["backbone"] == "later" else ""
        assert {*one} == {"lr", "batch_size", "backbone", *(prefix + name for name in ("width", "dropout", "norm"))}
        config = json.loads((tmp_path / "s" / "trials" / str(number) / "run.json").read_text())["config"]
        assert config["backbone"] == one["backbone"]
        assert dict(map(parse, config["backbone_options"])) == {
            name: one[prefix + name] for name in ("width", "dropout", "norm")
        }

    with pytest.raises(StudyError) as caught:
        run_search(make(SearchConfig, {**settings, "trials": 12}), tmp_path / "s")
    said = "backbones were optional, later and are optional: a list may grow, not shrink"
    assert caught.value.given == f"{tmp_path / 's'}: {said}"
    plugin.write_text(PLUGIN.replace("{most}", "12"))
    with pytest.raises(StudyError, match=r"(?s)option later.width was .*; the searched option width was"):
        run_search(make(SearchConfig, {**more, "trials": 12}), tmp_path / "s")


def test_options_of_a_run_are_kept_and_reproduced(plugin: Path, tiny_folder: Path, tmp_path: Path):
    plugins = load_plugins([str(plugin)])
    settings = {"backbone": "optional", "epochs": 1, "batch_size": 8, "threads": 1}
    settings |= {"backbone_options": ["width=3", "norm=group"], "device": "cpu"}
    list(run.train(str(tiny_folder), output=tmp_path / "run", plugins=plugins, **settings))
    model = load_model(tmp_path / "run", plugins=plugins)
    assert (model.network[0].out_channels, type(model.network[1])) == (3, nn.GroupNorm)
    again = Reproduction(tmp_path / "run", plugins=plugins)
    list(again.run(tmp_path / "again"))
    assert again.compare(tmp_path / "again").same
