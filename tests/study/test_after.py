"""What a search makes of ended trials: a refit, an ensemble, an average of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from automl_pt import load_model
from automl_pt.api.search import steps
from automl_pt.backbones.build import build_model
from automl_pt.config import SearchConfig
from automl_pt.core.errors import ConfigError, OutputError
from automl_pt.data.prepare import prepare
from automl_pt.model.ensemble import Ensemble
from automl_pt.model.info import ModelInfo
from automl_pt.model.labelled import manifest_of
from automl_pt.model.load import read_info
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.runs.directory import history
from automl_pt.study import events
from automl_pt.study.extras.descriptions import extras_lines
from automl_pt.study.extras.extras import Ended, after_search
from automl_pt.study.extras.refit import joined
from automl_pt.study.extras.weight_average import average
from automl_pt.study.records import StudyResult, TrialRecord

PLUGIN = """
from torch import nn
from automl_pt import Backbone, hookimpl

def build(num_classes, pretrained):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(32, num_classes))

def noisy(num_classes, pretrained):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(0.3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                         nn.Flatten(), nn.Linear(32, num_classes))

def other(num_classes, pretrained):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, num_classes))

@hookimpl
def register_backbones():
    return [Backbone("tiny", build, image_size=16, min_image_size=8), Backbone("other", other, image_size=8),
            Backbone("noisy", noisy, image_size=16)]
"""


def plugins_in(folder: Path) -> Plugins:
    plugin = folder / "tiny_plugin.py"
    plugin.write_text(PLUGIN)
    return load_plugins([str(plugin)])


def config_of(folder: Path, directory: Path, **settings: Any) -> SearchConfig:
    plugins_in(directory.parent)
    given = {
        "dataset": str(folder),
        "backbones": ("tiny",),
        "plugins": (str(directory.parent / "tiny_plugin.py"),),
        "epochs": 2,
        "trials": 3,
        "batch_sizes": (4, 8),
        "lr": (0.01, 0.3),
        "threads": 1,
        "workers": 0,
        "pruner": "none",
        "report": False,
    }
    return SearchConfig(**{**given, **settings})


def search(folder: Path, directory: Path, stop: Any = lambda: None, **settings: Any) -> tuple[StudyResult, list[str]]:
    told = list(steps(config_of(folder, directory, **settings), directory, stop=stop))
    last = told[-1]
    assert isinstance(last, events.Finished)
    notices = [event.text for event in told if isinstance(event, events.Notice)]
    return last.result, [text for text in notices if not text.startswith("splits as given")]


def test_an_ensemble_is_a_model_whose_probabilities_are_the_members_mean(tiny_folder: Path, tmp_path: Path) -> None:
    result, _ = search(tiny_folder, tmp_path / "study", ensemble=2)
    found, plugins = result.made["ensemble"], plugins_in(tmp_path)
    model = load_model(tmp_path / "study" / "model-ensemble", plugins=plugins)
    members = [load_model(tmp_path / "study" / "trials" / str(n), plugins=plugins) for n in found["members"]]
    files = sorted((tiny_folder / "val").rglob("*.png"))
    mean = np.mean([member.predict(files) for member in members], axis=0)
    assert np.allclose(model.predict(files), mean, atol=1e-6)
    assert isinstance(model.network, Ensemble)
    labels = np.array([model.classes.index(file.parent.name) for file in files])
    loss = -np.log(mean[np.arange(len(files)), labels]).mean()
    assert found["val_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert found["val_accuracy"] == (mean.argmax(1) == labels).mean()
    assert result.best is not None
    assert found["best_val_loss"] == pytest.approx(result.best.value)
    assert found["loss_gain"] == pytest.approx(found["best_val_loss"] - found["val_loss"])
    assert found["ms_per_image"] > 0
    assert found["test"] is not None
    assert found["members"][0] == result.best.number
    card = (tmp_path / "study" / "model-ensemble" / "README.md").read_text()
    assert "the mean probabilities of 2 networks" in card
    assert "automl-pt joins its networks" in card
    assert f"ensemble of trials {found['members'][0]}, {found['members'][1]}: val loss" in extras_lines(result.made)[0]


def test_what_was_made_of_the_same_trials_is_not_made_again(tiny_folder: Path, tmp_path: Path) -> None:
    first, said = search(tiny_folder, tmp_path / "study", ensemble=2, refit=True, trials=2)
    before = read_info(tmp_path / "study" / "model-refit")[1].sha256
    again, said_again = search(tiny_folder, tmp_path / "study", ensemble=2, refit=True, trials=2)
    assert len(said) == 3
    assert said_again == []
    assert again.made == first.made
    assert read_info(tmp_path / "study" / "model-refit")[1].sha256 == before


def test_what_is_made_stands_where_the_test_split_cannot_be_measured(tiny_folder: Path, tmp_path: Path) -> None:
    sorted((tiny_folder / "test").rglob("*.png"))[0].write_bytes(b"no image")
    found, said = search(tiny_folder, tmp_path / "study", ensemble=2, refit=True, trials=2)
    for name in ("ensemble", "refit"):
        assert found.made[name]["test"] is None
        assert (tmp_path / "study" / f"model-{name}" / "model.json").exists()
        text = f"{name}: the test split was not measured: too many images are unreadable; none are allowed: 1 of "
        assert sum(one.startswith(text) for one in said) == 1


# the last is what another search made, of other trials
@pytest.mark.parametrize("before", ["{", "[]", '{"refit": []}', '{"refit": {"of": [[7, 1]], "model": null}}'])
def test_what_could_not_be_made_is_not_kept_as_made(before: str, tiny_folder: Path, tmp_path: Path) -> None:
    def failing(ended: Ended) -> Any:
        yield "begun"
        raise OutputError("a disk has room", given="none", remedy="make some")

    (tmp_path / "made.json").write_text(before)
    config = config_of(tiny_folder, tmp_path / "study", refit=True)
    trial = TrialRecord(0, "COMPLETE", {}, 0.5, 2, 1.0, "completed", {})
    told = list(after_search(Ended(config, tmp_path, (trial,), None, lambda: False), {"refit": failing}))
    making = events.Finishing("making the refit")
    assert told == [making, events.Notice("begun"), events.Notice("refit: a disk has room: none; make some")]
    assert json.loads((tmp_path / "made.json").read_text()) == {}


def test_a_fault_of_somebody_elses_code_costs_that_thing_alone(tiny_folder: Path, tmp_path: Path) -> None:
    def failing(ended: Ended) -> Any:
        yield "begun"
        raise MemoryError("9 GB")

    config = config_of(tiny_folder, tmp_path / "study", ensemble=2, refit=True)
    trial = TrialRecord(0, "COMPLETE", {}, 0.5, 2, 1.0, "completed", {})
    told = list(
        after_search(
            Ended(config, tmp_path, (trial,), None, lambda: False), dict.fromkeys(["ensemble", "refit"], failing)
        )
    )
    text = "failed with MemoryError: 9 GB; the search's model is unaffected"
    for name in ("ensemble", "refit"):
        assert told[:3] == [
            events.Finishing(f"making the {name}"),
            events.Notice("begun"),
            events.Notice(f"{name}: {text}"),
        ]
        del told[:3]
    assert told == []


def test_an_ensemble_of_weights_that_are_gone_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    search(tiny_folder, tmp_path / "study", trials=2)
    result, said = search(tiny_folder, tmp_path / "study", trials=2, ensemble=3)
    assert result.made["ensemble"]["model"] is None
    assert len(said) == 1
    assert said[0].startswith("ensemble: 1 trial has weights, not 3: trials pruned after a proxy run")
    assert extras_lines(result.made) == [
        "ensemble: none, because only one trial has weights; keep more with --keep-models"
    ]


def test_members_that_want_other_images_are_left_out(tiny_folder: Path, tmp_path: Path) -> None:
    options = {"backbones": ("tiny", "other"), "trials": 4, "ensemble": 4}
    result, said = search(tiny_folder, tmp_path / "study", **options)
    sizes = {read_info(tmp_path / "study" / "trials" / str(n))[0].preprocessing.image_size for n in range(4)}
    assert sizes == {8, 16}
    found = result.made["ensemble"]
    assert len(found["members"]) < 4
    left_out = 4 - len(found["members"])
    assert said == [f"ensemble: {left_out} trials are skipped, because they use other preprocessing than the best one"]


def test_a_refit_trains_on_all_images_and_tells_what_it_cannot_know(tiny_folder: Path, tmp_path: Path) -> None:
    result, said = search(tiny_folder, tmp_path / "study", refit=True, trials=2, epochs=3)
    found, target = result.made["refit"], tmp_path / "study" / "model-refit"
    assert result.best is not None
    winner = read_info(tmp_path / "study" / "trials" / str(result.best.number))[0]
    assert found["epochs"] == winner.metrics["epoch"]
    info = read_info(target)[0]
    assert info.metrics["validation"] == "none: all training and validation images were trained on"
    assert "val_loss" not in info.metrics
    assert info.data["counts"] == {"train": 36, "val": 0, "test": 12}
    assert info.config["lr"] == winner.config["lr"]
    assert info.metrics["test_accuracy"] == found["test"]["accuracy"]
    assert "validation: none: all training" in (target / "README.md").read_text()
    manifest = manifest_of(target)
    assert manifest is not None
    assert manifest.counts() == {"train": 36, "val": 0, "test": 12}
    assert said[0].endswith("epochs on all 36 images, without validation")
    assert read_info(tmp_path / "study" / "model")[0].metrics == winner.metrics  # the search's own model stands
    [line] = extras_lines(result.made)
    assert "on new images is measured by the test split only; test: loss" in line


def test_the_refit_is_a_plain_run_on_the_joined_images(tiny_folder: Path, tmp_path: Path) -> None:
    """Its learning rates are the winner's, as far as its epochs go, and its weights those of its last epoch."""
    result, _ = search(tiny_folder, tmp_path / "study", refit=True, trials=2, epochs=3)
    assert result.best is not None
    [output] = (tmp_path / "study" / "refit").glob("trial-*")
    epochs = history(output)
    won = history(tmp_path / "study" / "trials" / str(result.best.number))
    # the schedule follows the share of the epochs done, so that the last steps of an epoch differ a little
    assert [one.lr for one in epochs] == pytest.approx([one.lr for one in won[: len(epochs)]], abs=0.002)
    assert all(np.isnan(one.val_loss) for one in epochs)
    assert not (output / "checkpoints").exists()
    kept = {path.name for path in output.glob("weights-*")}
    assert {path.name for path in (tmp_path / "study" / "model-refit").glob("weights-*")} == kept


def test_an_interrupted_refit_is_gone_on_with(tiny_folder: Path, tmp_path: Path) -> None:
    whole, _ = search(tiny_folder, tmp_path / "whole", refit=True, trials=2, epochs=3, pruner="none")
    config = config_of(tiny_folder, tmp_path / "study", refit=True, trials=2, epochs=3)
    epochs = 0
    for event in steps(config, tmp_path / "study"):
        if isinstance(event, events.Notice) and event.text.startswith("refit: epoch 1 of"):
            epochs = 1
            break
    assert epochs == 1
    assert not (tmp_path / "study" / "model-refit").exists()
    result, said = search(tiny_folder, tmp_path / "study", refit=True, trials=2, epochs=3)
    assert not [text for text in said if text.startswith("refit: epoch 1")]
    weights = [
        load_model(folder / "model-refit", plugins=plugins_in(tmp_path)).network.state_dict()
        for folder in (tmp_path / "study", tmp_path / "whole")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert result.made["refit"]["test"] == whole.made["refit"]["test"]


def test_a_refit_stopped_by_a_signal_says_that_it_goes_on(tiny_folder: Path, tmp_path: Path) -> None:
    search(tiny_folder, tmp_path / "study", trials=1)
    calls = []

    def stop() -> int | None:
        calls.append(1)
        return 2 if (tmp_path / "study" / "refit").exists() else None

    result, said = search(tiny_folder, tmp_path / "study", stop, trials=1, refit=True)
    assert said[-1] == "refit: not finished; the same command resumes it"
    assert result.made == {}
    assert result.signal == 2


def test_joining_the_splits_leaves_the_test_split_alone(tiny_folder: Path, tmp_path: Path) -> None:
    data = prepare(SearchConfig(dataset=str(tiny_folder), threads=1), load_plugins(), manifest=tmp_path / "m.json")
    together = joined(data)
    assert together.manifest.counts() == {"train": 36, "val": 0, "test": 12}
    assert len(together.pixels("val", 16).labels) == 0
    assert sorted(together.pixels("train", 16).names) == sorted(
        [*data.pixels("train", 16).names, *data.pixels("val", 16).names]
    )


def write_pretrained(folder: Path, backbone: str = "tiny") -> Path:
    """Write weights of a backbone as if somebody had trained them: with a head of other classes, which is not taken."""
    network = build_model(plugins_in(folder).backbone(backbone), 7, 16, seed=5)
    save_file(network.state_dict(), folder / "pretrained.safetensors")
    return folder / "pretrained.safetensors"


def val_loss(folder: Path, target: Path) -> float:
    """Measure the model in `target` on the files themselves, as whoever is given it does."""
    model = load_model(target, plugins=plugins_in(target.parents[1]), device="cpu")
    files = sorted((folder / "val").rglob("*.png"))
    labels = torch.tensor([model.classes.index(file.parent.name) for file in files])
    return nn.functional.cross_entropy(torch.from_numpy(model.logits(files)), labels).item()


# so short and slow a training leaves the trials close to where all of them began, and to each other
@pytest.mark.parametrize("backbone", ["tiny", "noisy"])
def test_an_average_that_is_better_is_kept_as_it_was_measured(backbone: str, tiny_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"weights": str(write_pretrained(tmp_path, backbone)), "backbones": (backbone,)}
    options["lr"] = (0.0005, 0.001)
    options["probe"] = False  # it would be the best model: trials as short as these end behind it
    options |= {"batch_norm": "train", "seed": 3}  # with which the average of either network is the better one
    result, said = search(tiny_folder, tmp_path / "study", average=4, trials=4, **options)
    found, target = result.made["average"], tmp_path / "study" / "model-average"
    assert found["kept"]
    assert len(found["members"]) > 1
    assert sorted([found["members"][0], *found["tried"]]) == [0, 1, 2, 3]
    assert sum(text.startswith("average: ") for text in said) == 3
    assert found["loss_gain"] == pytest.approx(found["best_val_loss"] - found["val_loss"], rel=1e-4)
    assert found["loss_gain"] > 0
    assert found["batch_norm"] == "recomputed in one pass over the training images"
    metrics = read_info(target)[0].metrics
    assert (metrics["average_of_trials"], metrics["val_loss"]) == (found["members"], found["val_loss"])
    assert val_loss(tiny_folder, target) == pytest.approx(found["val_loss"], rel=1e-5)
    # the search's own model stands beside it
    assert val_loss(tiny_folder, tmp_path / "study" / "model") == pytest.approx(found["best_val_loss"], rel=1e-5)


def test_an_average_that_is_worse_is_not_kept(tiny_folder: Path, tmp_path: Path) -> None:
    options = {"weights": str(write_pretrained(tmp_path)), "average": 3, "lr": (0.01, 0.3)}
    result, _ = search(tiny_folder, tmp_path / "study", **options)
    found = result.made["average"]
    assert not found["kept"]
    assert found["batch_norm"] == "kept, the same in all"
    assert len(found["tried"]) == 2
    assert found["val_loss"] == found["best_val_loss"]
    assert not (tmp_path / "study" / "model-average").exists()


def test_an_average_is_the_mean_of_each_tensor() -> None:
    states = [{"a": torch.tensor([1.0, 3.0]), "n": torch.tensor(4)}]
    states += [{"a": torch.tensor([3.0, 5.0]), "n": torch.tensor(9)}]
    assert average(states)["a"].tolist() == [2.0, 4.0]
    assert average(states)["n"].item() == 4
    assert torch.equal(average([states[0]] * 3)["a"], states[0]["a"])


def test_only_trials_from_the_same_weights_are_averaged() -> None:
    from automl_pt.config import make

    with pytest.raises(ConfigError, match=r"average needs pretrained or weights: only trials that started from"):
        make(SearchConfig, {"dataset": "digits", "average": 2, "pretrained": False})
    with pytest.raises(ConfigError, match=r"ensemble: should be greater than or equal to 2, got 1"):
        make(SearchConfig, {"dataset": "digits", "ensemble": 1})


def test_an_average_of_one_trial_is_none(tiny_folder: Path, tmp_path: Path) -> None:
    weights = write_pretrained(tmp_path)
    result, _ = search(tiny_folder, tmp_path / "study", weights=str(weights), average=2, trials=1)
    assert result.made["average"]["kept"] is False
    assert extras_lines(result.made) == [
        "average of weights: not kept, the validation loss does not fall (no other trial has weights)"
    ]


def test_time_for_what_comes_after_is_kept_free() -> None:
    from automl_pt.study.budget import Budget

    config = SearchConfig(dataset="digits", epochs=5, refit=True)
    assert config.images_to_learn(100, 20) == 600
    now = [0.0]
    budget = Budget(100.0, images=(100, 40), clock=lambda: now[0], later=600)
    budget.begin()
    now[0] = 2.0
    budget.count(2.0)
    assert budget.per_image == pytest.approx(0.02)
    assert budget.end == pytest.approx(0.5 + 0.8)
    assert budget.reserve == pytest.approx(budget.end + 2)  # no more than the trials have had so far
    now[0] = 20.0
    budget.count(18.0, epochs=9.0)
    assert budget.reserve == pytest.approx(budget.end + 12)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([{"title": "trial 1"}], "members holds an entry without title, backbone, config and metrics"),
        (["trial 1"], "members holds an entry without title, backbone, config and metrics"),
        ([{}] * 101, "members has 101 entries; 100 are allowed"),
        ({}, "members is dict, not a list"),
    ],
)
def test_a_forged_list_of_members_is_refused(members: Any, text: str) -> None:
    from tiny import make_info

    values = make_info().to_dict()
    assert ModelInfo.from_dict(values).members == []
    with pytest.raises(ValueError, match=text):
        ModelInfo.from_dict({**values, "members": members})


@pytest.mark.parametrize(
    "found", [{}, {"model": 3}, [], None, {"model": "m", "trial": 1, "epochs": 2, "test": {"loss": "x"}}]
)
@pytest.mark.parametrize("name", ["ensemble", "average", "refit"])
def test_figures_that_somebody_edited_are_named_and_cost_no_report(name: str, found: Any) -> None:
    [line] = extras_lines({name: found})
    assert line.startswith(f"{name}: made.json is damaged; remove it")
