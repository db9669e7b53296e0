"""The search on real images with a real, small network: the seam between search, run and model directory."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import hungry
from torch import nn

from automl_pt import load_model
from automl_pt.api.classifier_objective import paired
from automl_pt.api.search import steps
from automl_pt.config import SearchConfig
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs.run import execute
from automl_pt.study import events
from automl_pt.study.executor.base import TrialSpec
from automl_pt.study.executor.messages import ProxyRun
from automl_pt.study.executor.trial_run import epochs
from automl_pt.study.proxy_run import due_after
from automl_pt.study.ranking import last_state, rank_loss, use_batch_statistics
from automl_pt.study.records import StudyResult
from automl_pt.training.result import EpochResult

#: what a search of so few images says of unsure answers
NO_RULE = ("no rule for unsure answers: 12 images, but a largest error of 0.05 needs at least 19",)
PLUGIN = """
from torch import nn
from automl_pt import Backbone, hookimpl

def build(num_classes, pretrained):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(32, num_classes))

@hookimpl
def register_backbones():
    return [Backbone("tiny", build, image_size=16, min_image_size=8)]
"""


def search(folder: Path, directory: Path, plugin_text: str = PLUGIN, **settings: Any) -> StudyResult:
    plugin = directory.parent / "tiny_plugin.py"
    plugin.write_text(plugin_text)
    config = SearchConfig(
        **{
            "dataset": str(folder),
            "backbones": ("tiny",),
            "plugins": (str(plugin),),
            "epochs": 3,
            "trials": 4,
            "batch_sizes": (4, 8),
            "threads": 1,
            "workers": 0,
            **settings,
        }
    )
    for event in steps(config, directory):
        if isinstance(event, events.Finished):
            return event.result
    raise AssertionError


def test_a_search_leaves_a_model_that_gives_the_figures_it_was_chosen_by(tiny_folder: Path, tmp_path: Path) -> None:
    result = search(tiny_folder, tmp_path / "study")
    assert result.best is not None
    assert result.model is not None
    assert result.test is not None
    assert 0 <= result.test["accuracy"] <= 1
    assert result.comparison is not None
    assert result.comparison.images == 12
    assert [record.state for record in result.trials].count(
        "COMPLETE"
    ) == 2  # at least two go on, and the default is clearly behind
    model = load_model(result.model, plugins=load_plugins([str(tmp_path / "tiny_plugin.py")]))
    data = prepare(
        SearchConfig(dataset=str(tiny_folder), pretrained=False),
        load_plugins(),
        manifest=tmp_path / "study" / "manifest.json",
    )
    pixels = data.pixels("val", 16)
    logits = torch.from_numpy(model.forward(np.asarray(pixels.images)))
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(pixels.labels)).item()
    assert loss == pytest.approx(result.best.value, abs=1e-5)


def test_final_figures_are_there_where_memory_does_not_last_for_a_batch(tiny_folder: Path, tmp_path: Path) -> None:
    expected = search(tiny_folder, tmp_path / "plain", trials=2, pruner="none")
    found = search(tiny_folder, tmp_path / "hungry", trials=2, pruner="none", plugin_text=hungry(PLUGIN))
    assert [note for note in found.notes if "memory" in note] == [
        "out of memory with 12 images at once; continued with 2"
    ]
    assert found.test == pytest.approx(expected.test, abs=1e-5)
    assert found.comparison is not None
    assert expected.comparison is not None
    assert found.comparison.difference == pytest.approx(expected.comparison.difference, abs=1e-5)
    assert expected.notes == NO_RULE
    assert found.report is not None


def test_deleting_the_test_split_changes_nothing_but_the_final_figure(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    (tiny_folder / "test" / "red" / "broken.png").write_bytes(b"no image, and in no search's way")
    tested = search(tiny_folder, tmp_path / "with" / "study", max_bad=0.1)
    shutil.rmtree(tiny_folder / "test")
    untested = search(tiny_folder, tmp_path / "without" / "study", max_bad=0.1)
    assert (tested.test is not None, untested.test) == (True, None)

    def told(result: StudyResult) -> list[Any]:
        return [(one.number, one.params, one.state, one.value, one.losses, one.reason) for one in result.trials]

    assert told(tested) == told(untested)
    assert tested.best is not None
    assert untested.best is not None
    assert tested.best.number == untested.best.number
    assert tested.comparison == untested.comparison
    # a weights file is named after its content
    weights = [[path.name for path in Path(str(one.model)).glob("weights-*")] for one in (tested, untested)]
    assert weights[0] == weights[1] != []


def test_a_test_image_that_cannot_be_read_costs_the_search_that_figure_alone(tiny_folder: Path, tmp_path: Path) -> None:
    sorted((tiny_folder / "test").rglob("*.png"))[0].write_bytes(b"no image")
    found = search(tiny_folder, tmp_path / "study", trials=1, epochs=1, report=False)
    assert (found.test, found.model) == (None, str(tmp_path / "study" / "model"))
    assert found.notes[0].startswith(
        "the test split was not measured: too many images are unreadable; none are allowed"
    )
    assert "repair or remove them" in found.notes[0]


def test_a_test_split_that_was_gone_for_a_while_is_measured_by_the_next_search(
    tiny_folder: Path, tmp_path: Path
) -> None:
    def once(trials: int) -> StudyResult:
        return search(tiny_folder, tmp_path / "study", trials=trials, epochs=1, report=False)

    once(1)
    (tiny_folder / "test").rename(tmp_path / "aside")
    gone = once(2)
    assert gone.test is None
    assert gone.notes[0].startswith("the test split was not measured: ")
    (tmp_path / "aside").rename(tiny_folder / "test")
    back = once(2)
    assert (back.test is not None, back.notes) == (True, NO_RULE)
    assert back.comparison == gone.comparison


@pytest.mark.parametrize("workers", [0, 1])
def test_a_paused_and_resumed_trial_equals_one_run_in_one_go(tiny_folder: Path, tmp_path: Path, workers: int) -> None:
    rungs = search(tiny_folder, tmp_path / "rungs", workers=workers, rivals="none")
    full = search(tiny_folder, tmp_path / "full", pruner="none")
    for paused, whole in zip(rungs.trials, full.trials, strict=True):
        assert paused.params == whole.params
        assert paused.losses == {epoch: whole.losses[epoch] for epoch in paused.losses}
        assert paused.state == "PRUNED" or paused.value == whole.value


def test_ranking_looks_and_changes_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny_plugin.py").write_text(PLUGIN)
    plugins = load_plugins([str(tmp_path / "tiny_plugin.py")])
    config = SearchConfig(dataset=str(tiny_folder), backbones=("tiny",), epochs=2).trial(
        backbone="tiny", lr=0.01, batch_size=8, seed=1
    )
    data = prepare(config, plugins)
    run = execute(config, tmp_path / "run", data=data, plugins=plugins)
    next(run)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    first, second = (rank_loss(config, last_state(tmp_path / "run")["model"], data, plugins) for _ in range(2))
    assert first == second
    assert first is not None
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    run.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("layers", ["nn.BatchNorm2d(8), ", ""])
def test_a_trial_begins_after_its_runs_in_miniature_as_if_there_had_been_none(
    tiny_folder: Path, tmp_path: Path, layers: str
) -> None:
    (tmp_path / "tiny_plugin.py").write_text(PLUGIN.replace("nn.BatchNorm2d(8), ", layers))
    plugins = load_plugins([str(tmp_path / "tiny_plugin.py")])
    config = SearchConfig(dataset=str(tiny_folder), backbones=("tiny",), epochs=2, threads=1).trial(
        backbone="tiny", lr=0.01, batch_size=4, seed=1
    )
    data = prepare(config, plugins)
    whole = list(execute(config, tmp_path / "whole", data=data, plugins=plugins))
    spec = TrialSpec(1, config, tmp_path / "broken", 1 / 3, tmp_path / "manifest.json", (1 / 3, 2 / 3))
    paused = next(epochs(spec, lambda: False, data, plugins))
    promoted_once = replace(spec, next_rung=2 / 3, ranked_at=(2 / 3,))
    longer = next(epochs(promoted_once, lambda: False, data, plugins))
    assert not (tmp_path / "broken").exists()  # they leave nothing behind
    first, second, *results = epochs(spec, lambda: False, data, plugins)  # in one go
    for probe, alone, level in ((first, paused, 1 / 3), (second, longer, 2 / 3)):
        assert isinstance(probe, ProxyRun)
        assert isinstance(alone, ProxyRun)
        assert replace(probe, seconds=0) == replace(alone, seconds=0)
        assert probe.epoch == level
    assert [plain(result) for result in results] == [plain(result) for result in whole]
    models = [sorted(path.name for path in (tmp_path / name).glob("weights-*")) for name in ("whole", "broken")]
    assert models[0] == models[1] != []  # a weights file is named after its content
    promoted = [*epochs(replace(spec, next_rung=2, ranked_at=()), lambda: False, data, plugins)]
    assert [plain(result) for result in promoted] == [plain(result) for result in whole]


def test_a_run_in_miniature_sees_the_images_as_they_are_unless_asked_to_augment_always(
    tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny_plugin.py").write_text(PLUGIN)
    plugins = load_plugins([str(tmp_path / "tiny_plugin.py")])
    losses = {}
    for augment in ("early", "none", "always"):
        config = SearchConfig(
            dataset=str(tiny_folder), backbones=("tiny",), epochs=2, threads=1, augment=augment
        ).trial(backbone="tiny", lr=0.01, batch_size=4, seed=1)
        data = prepare(config, plugins)
        probe = next(
            epochs(TrialSpec(1, config, tmp_path / augment, 1 / 2, tmp_path / "m.json", (1 / 2,)), never, data, plugins)
        )
        assert isinstance(probe, ProxyRun)
        losses[augment] = probe.rank_loss
    assert losses["early"] == losses["none"] != losses["always"]


def never() -> bool:
    return False


def plain(result: EpochResult | ProxyRun) -> EpochResult:
    """Leave out what is timed."""
    assert isinstance(result, EpochResult)
    return replace(result, seconds=0, images_per_second=0, data_wait=0, peak_memory=0, save_seconds=0)


def test_a_trial_stopped_before_its_probe_gives_none_and_goes_on(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny_plugin.py").write_text(PLUGIN)
    plugins = load_plugins([str(tmp_path / "tiny_plugin.py")])
    config = SearchConfig(dataset=str(tiny_folder), backbones=("tiny",), epochs=1, threads=1).trial(
        backbone="tiny", lr=0.01, batch_size=4, seed=1
    )
    data = prepare(config, plugins)
    specs = [TrialSpec(1, config, tmp_path / name, 1 / 3, tmp_path / "m.json", (1 / 3,)) for name in ("a", "b")]
    assert list(epochs(specs[0], lambda: True, data, plugins)) == []
    first, second = (next(epochs(spec, lambda: False, data, plugins)) for spec in specs)
    assert replace(first, seconds=0) == replace(second, seconds=0)


@pytest.mark.parametrize(
    ("level", "batches", "batch"), [(1 / 3, 1, 1), (1 / 3, 2, 1), (1 / 3, 3, 1), (1 / 3, 6, 2), (1 / 3, 100, 33)]
)
def test_a_fraction_of_an_epoch_ends_after_this_batch(level: float, batches: int, batch: int) -> None:
    assert due_after(level, batches) == batch


def test_batch_statistics_replace_the_running_ones_and_leave_them() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    images = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert use_batch_statistics(model)
    torch.testing.assert_close(model(images), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), atol=1e-4, rtol=0)
    assert torch.equal(model[0].running_mean, torch.zeros(2))  # type: ignore[arg-type]
    assert not use_batch_statistics(nn.Sequential(nn.Linear(2, 2)))


def test_a_lead_within_two_standard_errors_is_inside_the_noise() -> None:
    noise = np.random.default_rng(1).normal(0, 1, 400)
    first = np.abs(np.random.default_rng(2).normal(1, 1, 400))
    assert paired(0, 1, first, first + 0.01 + noise).inside_noise
    clear = paired(0, 1, first, first + 0.5 + noise)
    assert not clear.inside_noise
    assert clear.difference == pytest.approx(0.5, abs=0.1)
    assert clear.standard_error == pytest.approx(0.05, rel=0.2)


def test_a_search_says_how_it_understood_the_data_and_what_it_does_not_use(tiny_folder: Path, tmp_path: Path) -> None:
    def notices(**settings: Any) -> list[str]:
        plugin = tmp_path / "tiny_plugin.py"
        plugin.write_text(PLUGIN)
        config = SearchConfig(
            dataset=str(tiny_folder),
            **{"backbones": ("tiny",), "plugins": (str(plugin),), "batch_sizes": (4,), "workers": 0, "threads": 1},
            **{"epochs": 1, "report": False, **settings},
        )
        return [event.text for event in steps(config, tmp_path / "study") if isinstance(event, events.Notice)]

    assert notices(trials=1) == []
    image = next((tiny_folder / "train").rglob("*.png"))
    shutil.copy(image, image.with_name("later.png"))
    assert notices(trials=2) == [
        f"1 images were added since the split was frozen and are not used: train/{image.parent.name}/later.png",
    ]
