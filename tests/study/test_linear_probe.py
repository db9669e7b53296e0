"""Features computed once, the linear probe made of them, and heads trained on them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_folder
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from automl_pt import load_model
from automl_pt.api.search import steps
from automl_pt.backbones.build import build_model
from automl_pt.cli.report_display import print_study
from automl_pt.config import SearchConfig, TrainConfig, make
from automl_pt.core.errors import CheckpointError, ConfigError, PluginError, StudyError
from automl_pt.data.cache.disk import list_caches, prune
from automl_pt.data.cache.feature_file import append, begin, count_rows, read_features
from automl_pt.features.logistic import fit_head
from automl_pt.features.network import frozen_body, is_same_in_training
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.reporting.study import read_study
from automl_pt.runs.reproduce import Reproduction
from automl_pt.runs.run import train
from automl_pt.study import events
from automl_pt.study.executor.choose import executor_name
from automl_pt.study.extras.evaluator import ModelEvaluator
from automl_pt.study.floor import below_floor
from automl_pt.study.model_store import ModelStore, ranked
from automl_pt.study.records import ProbeRecord, StudyResult, TrialRecord

PLUGIN = """
import os
from torch import nn
from automl_pt import Backbone, hookimpl

def body(*more):
    return [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), *more]

def plain(num_classes, pretrained):
    return nn.Sequential(*body(nn.Linear(32, num_classes)))

def dropping(num_classes, pretrained):
    return nn.Sequential(*body(nn.Dropout(0.5), nn.Linear(32, num_classes)))

def squared(num_classes, pretrained):
    return nn.Sequential(*body(nn.Linear(32, num_classes), nn.Softmax(1)))

def deep(num_classes, pretrained):
    return nn.Sequential(*body(nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, num_classes))))

class Dying(nn.Sequential):
    def forward(self, images):
        if len(images) > 4:
            os._exit(3)
        return super().forward(images)

def dying(num_classes, pretrained):
    return Dying(*body(nn.Linear(32, num_classes)))

@hookimpl
def register_backbones():
    made = {"plain": plain, "dropping": dropping, "squared": squared, "dying": dying}
    return [*(Backbone(name, build, image_size=16) for name, build in made.items()),
            Backbone("deep", deep, image_size=16, head="5")]
"""


@pytest.fixture(autouse=True)
def own_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test find features of another one."""
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    path = tmp_path / "networks.py"
    path.write_text(PLUGIN)
    return load_plugins((str(path),))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", {"train": 12, "val": 6})


def weights(plugins: Plugins, folder: Path, name: str = "plain") -> Path:
    """Write weights of a network with a head of another number of classes, as published ones have."""
    path = folder / f"{name}.safetensors"
    save_file(build_model(plugins.backbone(name), 7, 16, seed=5).state_dict(), path)
    return path


def search(
    photos: Path, folder: Path, plugins: Plugins, name: str = "plain", **settings: Any
) -> tuple[StudyResult, list[events.Event]]:
    given = {"dataset": str(photos), "backbones": (name,), "weights": str(weights(plugins, photos.parent, name))}
    made = {"plugins": plugins.files, "epochs": 2, "trials": 2, "batch_sizes": (4, 8), "threads": 1, "workers": 0}
    told = list(steps(SearchConfig(**{**given, **made, "report": False, **settings}), folder))
    last = told[-1]
    assert isinstance(last, events.Finished)
    return last.result, told


@pytest.mark.parametrize("classes", [3, 7])
def test_a_fitted_head_is_that_of_logistic_regression(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(classes)
    centres = rng.normal(size=(classes, 12))
    labels = np.arange(140) % classes
    features = (centres[labels] + rng.normal(size=(140, 12))).astype(np.float32) * np.linspace(
        0.1, 9, 12, dtype=np.float32
    )
    pairs = [(torch.from_numpy(features[part]), torch.from_numpy(labels[part])) for part in (slice(70), slice(70, 140))]
    head = fit_head(pairs[0], pairs[1], classes)
    train, check = features[:70], features[70:]
    mean, scale = train.mean(0), train.std(0)
    found = LogisticRegression(C=head.c, max_iter=5000, tol=1e-8).fit((train - mean) / scale, labels[:70])
    logits = np.log(found.predict_proba((check - mean) / scale))
    expected = F.cross_entropy(torch.from_numpy(logits), pairs[1][1]).item()
    assert head.val_loss == pytest.approx(expected, abs=0.02)
    assert head.val_loss == pytest.approx(min(loss for _, loss in head.tried), abs=1e-4)
    assert (head.val_top5 is None) == (classes <= 5)


def test_a_dimension_that_never_changes_does_no_harm() -> None:
    features = torch.cat([torch.randn(40, 3, generator=torch.manual_seed(1)), torch.full((40, 1), 5.0)], 1)
    labels = (features[:, 0] > 0).long()
    head = fit_head((features, labels), (features, labels), 2)
    assert torch.isfinite(head.weight).all()
    assert head.val_accuracy > 0.9


@pytest.mark.parametrize("head", ["new", "probe"])
def test_a_search_from_weights_begins_with_a_probe_that_is_a_finished_model(
    photos: Path, tmp_path: Path, plugins: Plugins, head: str
) -> None:
    result, told = search(photos, tmp_path / "study", plugins, head=head)
    (probe,) = result.probes
    kinds = [type(event) for event in told]
    assert kinds.index(events.ProbeEnded) < kinds.index(events.NewBest) < kinds.index(events.TrialStarted)
    first = next(event for event in told if isinstance(event, events.NewBest))
    assert (first.number, first.value) == (-1, probe.value)
    assert (probe.number, probe.computed) == (-1, 54)
    assert result.best is not None
    assert result.best.value is not None
    assert result.best.value <= (probe.value or 0)
    assert len(result.trials) == 2
    for record in result.trials:
        run = json.loads((tmp_path / "study" / "trials" / str(record.number) / "run.json").read_text())
        assert run["config"]["head"] == head


def test_the_probes_model_gives_the_figures_it_is_shown_with(photos: Path, tmp_path: Path, plugins: Plugins) -> None:
    result, _ = search(photos, tmp_path / "study", plugins, trials=1, lr=(3.0, 3.0))
    model = load_model(tmp_path / "study" / "model", plugins=plugins)
    assert model.info.metrics["val_loss"] == result.probes[0].value
    files = sorted((photos / "val").rglob("*.png"))
    labels = torch.tensor([model.classes.index(path.parent.name) for path in files])
    logits = torch.from_numpy(model.logits(files))
    assert F.cross_entropy(logits, labels).item() == pytest.approx(result.probes[0].value, abs=1e-4)
    assert result.best is not None
    assert result.best.number == -1  # the only trial guesses, or diverges


def test_a_probe_is_not_reproduced_as_a_run_but_a_trial_that_starts_from_it_is(
    photos: Path, tmp_path: Path, plugins: Plugins
) -> None:
    search(photos, tmp_path / "study", plugins, trials=1, epochs=1, head="probe")
    with pytest.raises(CheckpointError) as caught:
        Reproduction(tmp_path / "study" / "trials" / "-1", plugins=plugins)
    assert caught.value.rule == "this is a linear probe, which a search fits and no run trains"
    again = Reproduction(tmp_path / "study" / "trials" / "0", plugins=plugins)
    list(again.run(tmp_path / "again"))
    assert again.compare(tmp_path / "again").differences == ()


def test_the_best_of_several_backbones_is_searched_and_limits_leave_backbones_out(
    photos: Path, tmp_path: Path, plugins: Plugins
) -> None:
    path = str(weights(plugins, tmp_path))
    given: dict[str, Any] = {"dataset": str(photos), "plugins": plugins.files, "weights": path, "threads": 1}
    config = SearchConfig(**given, backbones="squared,plain", epochs=1, trials=2, workers=0, report=False)
    assert config.backbones == ("squared", "plain")
    told = list(steps(config, tmp_path / "study"))
    last = told[-1]
    assert isinstance(last, events.Finished)
    assert {trial.params["backbone"] for trial in last.result.trials} == {"plain"}
    assert any("fine-tuned: plain" in event.text for event in told if isinstance(event, events.Notice))
    shown = io.StringIO()
    print_study(read_study(tmp_path / "study"), Console(file=shown, width=200))
    (probe,) = (one for one in last.result.probes if one.failure is None)
    assert f"backbones by their probes: plain {probe.value:.4f} (0.0 M parameters, " in shown.getvalue()
    assert "squared: the network's head is not one linear layer" in shown.getvalue()
    report = read_study(tmp_path / "study")
    assert [probe.backbone for probe in report.probes] == ["squared", "plain"]
    assert report.to_dict()["probes"][0]["failure"].startswith("the network's head is not one linear layer")
    bounded = config.model_copy(update={"max_params": 100})
    with pytest.raises(StudyError) as caught:
        list(steps(bounded, tmp_path / "bounded"))
    assert "plain: 339 parameters, over the limit of 100" in caught.value.given


@pytest.mark.parametrize(
    ("value", "classes", "expected"),
    [(0.9, 2, "no better than guessing (ln 2 = 0.6931)"), (0.6, 2, "behind the probe (0.5000)"), (0.4, 2, None)],
)
def test_what_ends_behind_a_floor_is_named(value: float, classes: int, expected: str | None) -> None:
    probes = [ProbeRecord(-1, "plain", 0.5), ProbeRecord(-2, "other", 0.1, failure="over the limit")]
    assert below_floor(trial(0, value), classes, probes) == expected


@pytest.mark.parametrize(
    ("given", "lr", "params"),
    [
        ({}, (1e-4, 1.0), None),
        ({"pretrained": True, "max_params": "10M"}, (3e-4, 3e-2), 10_000_000),
        ({"weights": "file", "max_params": "500k"}, (3e-4, 3e-2), 500_000),
        ({"pretrained": True, "freeze": "backbone", "max_params": 7}, (1e-4, 1.0), 7),
        ({"pretrained": True, "lr": (0.1, 0.2)}, (0.1, 0.2), None),
    ],
)
def test_a_search_from_weights_has_ranges_of_its_own(given: dict[str, Any], lr: Any, params: int | None) -> None:
    made = make(SearchConfig, {"dataset": "photos", **given}).for_start(pretrained=False)
    assert (made.lr, made.max_params) == (lr, params)


@pytest.mark.parametrize(
    "given", [{"max_params": "10M", "pretrained": False}, {"max_ms": 5.0, "pretrained": True, "probe": False}]
)
def test_limits_need_probes(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="limit the choice by probes"):
        make(SearchConfig, {"dataset": "photos", **given})


def test_a_probe_needs_trained_weights() -> None:
    with pytest.raises(ConfigError, match="is fitted to the features of trained weights"):
        make(TrainConfig, {"dataset": "photos", "head": "probe", "pretrained": False})


def test_features_are_listed_and_pruned_with_the_decoded_images(photos: Path, tmp_path: Path, plugins: Plugins) -> None:
    cache = tmp_path / "cache"
    search(photos, tmp_path / "study", plugins, trials=1, epochs=1, cache_dir=str(cache))
    found = {one.kind: one for one in list_caches(cache / "pixels")}
    assert (found["features"].count, found["features"].image_size, found["features"].backbone) == (54, 16, "plain")
    found["features"].path.write_bytes(b"damaged")
    assert [one.kind for one in prune(cache / "pixels")] == ["features"]
    assert [one.kind for one in list_caches(cache / "pixels")] == ["pixels"]


def test_features_are_computed_once_for_all_studies_and_gone_on_with_after_a_kill(
    photos: Path, tmp_path: Path, plugins: Plugins
) -> None:
    cache = tmp_path / "cache"
    first, _ = search(photos, tmp_path / "one", plugins, trials=1, cache_dir=str(cache))
    again, _ = search(photos, tmp_path / "two", plugins, trials=1, cache_dir=str(cache))
    assert (first.probes[0].computed, again.probes[0].computed) == (54, 0)
    assert first.probes[0].value == again.probes[0].value
    (file,) = (cache / "pixels").glob("*.features")
    content = file.read_bytes()
    file.write_bytes(content[:-100])  # as a kill in the middle of a block leaves it
    third, _ = search(photos, tmp_path / "three", plugins, trials=1, cache_dir=str(cache))
    assert 0 < third.probes[0].computed < 54
    assert third.probes[0].value == pytest.approx(first.probes[0].value, abs=1e-6)


def test_a_network_that_ends_its_process_costs_the_probe_alone_and_is_named(
    photos: Path, tmp_path: Path, plugins: Plugins
) -> None:
    given = {"dataset": str(photos), "backbones": ("dying", "plain"), "plugins": plugins.files, "workers": 1}
    path = str(weights(plugins, tmp_path))
    config = SearchConfig(**given, weights=path, epochs=1, trials=1, batch_sizes=(2,), threads=1, report=False)
    told: list[events.Event] = []
    for event in steps(config, tmp_path / "study"):
        told.append(event)
        if isinstance(event, events.ProbeEnded):
            break
    notices = [event.text for event in told if isinstance(event, events.Notice)]
    assert any(text.startswith("no probe of dying: ") and "3 times" in text for text in notices)


@pytest.mark.parametrize("features", ["cached", "mirrored"])
def test_a_head_trained_on_features_is_that_of_a_frozen_run_on_images(
    photos: Path, tmp_path: Path, plugins: Plugins, features: str
) -> None:
    shared: dict[str, Any] = {
        **{"plugins": plugins, "backbone": "plain", "weights": str(weights(plugins, tmp_path)), "freeze": "backbone"},
        **{"epochs": 4, "batch_size": 5, "lr": 0.05, "threads": 1, "precision": "fp32", "augment": "none"},
    }
    slow = list(train(str(photos), output=tmp_path / "slow", features="computed", **shared))
    fast = list(train(str(photos), output=tmp_path / "fast", features=features, **shared))
    assert [one.val_loss for one in fast] == pytest.approx([one.val_loss for one in slow], rel=1e-4)
    assert [one.train_loss for one in fast] == pytest.approx([one.train_loss for one in slow], rel=1e-4)
    tensors = [load_file(next((tmp_path / name).glob("weights-*"))) for name in ("slow", "fast")]
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        assert torch.allclose(tensor.float(), tensors[1][name].float(), rtol=1e-3, atol=1e-5)


def test_mirror_images_augment_a_head_where_the_data_allow_them(photos: Path, tmp_path: Path, plugins: Plugins) -> None:
    shared: dict[str, Any] = {
        **{"plugins": plugins, "backbone": "plain", "weights": str(weights(plugins, tmp_path)), "freeze": "backbone"},
        **{"epochs": 2, "batch_size": 6, "lr": 0.05, "threads": 1, "augment": "always"},
    }
    losses = {
        features: [
            one.train_loss for one in train(str(photos), output=tmp_path / features, features=features, **shared)
        ]
        for features in ("cached", "mirrored")
    }
    assert losses["cached"] != losses["mirrored"]


@pytest.mark.parametrize(("name", "why"), [("dropping", "differs in training"), ("deep", "more than the linear layer")])
def test_a_network_whose_features_cannot_be_kept_runs_in_every_epoch_and_says_so(
    photos: Path, tmp_path: Path, plugins: Plugins, name: str, why: str
) -> None:
    path = str(weights(plugins, tmp_path, name))
    settings: dict[str, Any] = {"weights": path, "freeze": "backbone", "epochs": 1, "batch_size": 8, "threads": 1}
    (result,) = train(str(photos), output=tmp_path / "run", plugins=plugins, backbone=name, **settings)
    assert any("runs in every epoch" in note and why in note for note in result.notes)


def test_a_network_without_a_linear_head_has_no_probe_and_the_search_says_why(
    photos: Path, tmp_path: Path, plugins: Plugins
) -> None:
    with pytest.raises(PluginError) as caught:
        frozen_body(build_model(plugins.backbone("squared"), 3, 16, seed=1), plugins.backbone("squared"), 16)
    assert caught.value.given == "squared: the logits are not the output of 5"
    result, told = search(photos, tmp_path / "study", plugins, "squared", trials=1, epochs=1, head="probe")
    assert result.probes[0].failure is not None
    assert any("no probe of squared" in event.text for event in told if isinstance(event, events.Notice))
    assert result.best is not None
    assert result.best.number == 0


def test_a_body_is_the_same_in_training_unless_it_drops_out(plugins: Plugins) -> None:
    for name, expected in (("plain", True), ("dropping", False)):
        body = frozen_body(build_model(plugins.backbone(name), 3, 16, seed=1), plugins.backbone(name), 16)
        before = {key: tensor.clone() for key, tensor in body.network.state_dict().items()}
        assert is_same_in_training(body, 16) is expected
        assert all(torch.equal(tensor, before[key]) for key, tensor in body.network.state_dict().items())
        assert not body.network.training


def test_a_search_of_heads_prunes_nothing(photos: Path, tmp_path: Path, plugins: Plugins) -> None:
    result, told = search(photos, tmp_path / "study", plugins, trials=6, freeze="backbone", epochs=3)
    assert {trial.state for trial in result.trials} == {"COMPLETE"}
    assert any("features computed once" in event.text for event in told if isinstance(event, events.Notice))
    assert not any(isinstance(event, events.TrialRanked) for event in told)


def test_a_search_of_heads_writes_only_weights_that_it_keeps(photos: Path, tmp_path: Path, plugins: Plugins) -> None:
    given = {"dataset": str(photos), "backbones": ("plain",), "weights": str(weights(plugins, tmp_path)), "trials": 8}
    made = {"plugins": plugins.files, "epochs": 3, "batch_sizes": (4, 8), "threads": 1, "workers": 0, "report": False}
    config, losses, saved = SearchConfig(**{**given, **made, "freeze": "backbone", "probe": False}), list[float](), 0
    for event in steps(config, tmp_path / "study"):
        if isinstance(event, events.TrialEnded):  # before what is not kept is removed
            assert event.value is not None
            is_kept = sum(loss < event.value for loss in losses) < 2  # the best and the runner-up
            assert (tmp_path / "study" / "trials" / str(event.number) / "model.json").exists() is is_kept
            losses.append(event.value)
            saved += is_kept
    assert saved < len(losses) == 8
    assert load_model(tmp_path / "study" / "model", plugins=plugins).info.metrics["val_loss"] == min(losses)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_model_whose_head_alone_was_trained_is_judged_by_stored_features_with_the_networks_figures(
    tmp_path: Path, plugins: Plugins, precision: str
) -> None:
    photos = write_folder(tmp_path / "photos", {"train": 12, "val": 6, "test": 5})
    shared = {"freeze": "backbone", "precision": precision, "trials": 3, "report": True}
    result, _ = search(photos, tmp_path / "study", plugins, probe=False, **shared)
    (file,) = (tmp_path / "cache" / "pixels").glob("*.features")
    assert count_rows(file) == 3 * (12 + 6 + 5)  # so the test's images went through the network as features
    model = load_model(tmp_path / "study" / "model", plugins=plugins)
    evaluator = ModelEvaluator.of(SearchConfig(dataset=str(photos), precision=precision), tmp_path / "study", plugins)
    for split in ("val", "test"):
        pixels = np.asarray(evaluator.data.pixels(split, 16).images[:])
        logits, features = model.forward_with_features(pixels)
        scored = evaluator.score(model, split, features=True)
        assert scored.features is not None
        tolerance = 1e-5 if model.precision == "fp32" else 2e-2
        assert np.allclose(scored.logits, logits, rtol=tolerance, atol=tolerance)
        assert np.allclose(scored.features, features, rtol=tolerance, atol=tolerance)
        assert (scored.logits.argmax(1) == logits.argmax(1)).all()
    assert result.test is not None
    labels = evaluator.data.pixels("test", 16).labels
    assert result.test["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).mean()))


def test_a_model_of_other_weights_or_of_a_trained_body_runs_its_network(
    photos: Path, tmp_path: Path, plugins: Plugins
) -> None:
    search(photos, tmp_path / "study", plugins, trials=1, freeze="backbone")
    evaluator = ModelEvaluator.of(SearchConfig(dataset=str(photos)), tmp_path / "study", plugins)
    (file,) = (tmp_path / "cache" / "pixels").glob("*.features")
    begun = file.read_bytes()
    model = load_model(tmp_path / "study" / "model", plugins=plugins)
    by_features = evaluator.score(model).logits
    with torch.no_grad():
        next(model.network.parameters()).add_(0.1)
    by_network = evaluator.score(model).logits
    assert not np.allclose(by_features, by_network)
    assert np.array_equal(by_network, model.forward(np.asarray(evaluator.data.pixels("val", 16).images[:])))
    assert file.read_bytes() == begun
    assert len(list((tmp_path / "cache" / "pixels").glob("*.features"))) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "inline"),
        ({"freeze": "none"}, "processes"),
        ({"features": "computed"}, "processes"),
        ({"backbones": ("resnet18", "resnet34")}, "processes"),
        ({"workers": 1}, "processes"),
        ({"trial_timeout": 60.0}, "processes"),
        ({"plugins": ("networks.py",)}, "processes"),
        ({"engine": "processes"}, "processes"),
    ],
)
def test_trials_of_milliseconds_run_in_this_process_where_it_risks_nothing(
    given: dict[str, Any], expected: str
) -> None:
    frozen = {"dataset": "digits", "backbones": ("resnet18",), "freeze": "backbone", "pretrained": True}
    assert executor_name(SearchConfig(**{**frozen, **given}), None) == expected


@pytest.mark.parametrize(
    ("losses", "keep", "expected"),
    [((), 1, math.inf), ((0.5,), 2, math.inf), ((0.5, 0.3, 0.4), 2, 0.4), ((0.5, math.nan, 0.4), 3, math.inf)],
)
def test_weights_are_worth_saving_where_they_would_be_kept(
    losses: tuple[float, ...], keep: int, expected: float
) -> None:
    records = [probe(0.1), trial(9, 0.1, "PRUNED"), *(trial(place, loss) for place, loss in enumerate(losses))]
    assert ModelStore.worth_saving(records, keep) == expected


def probe(value: float | None, number: int = -1, failure: str | None = None) -> TrialRecord:
    return ProbeRecord(number, "plain", value, 0.5, 1.0, failure=failure).as_trial()


def trial(number: int, value: float, state: str = "COMPLETE") -> TrialRecord:
    return TrialRecord(number, state, {}, value, 1, 1.0, "completed", {1: value})


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([probe(0.5), trial(0, 0.4), trial(1, 0.6)], [0, -1, 1]),
        ([probe(0.5), trial(0, 0.6), trial(1, 0.4, "RUNNING")], [-1, 0, 1]),
        ([probe(0.5), trial(0, 0.4, "RUNNING")], [0, -1]),
        ([probe(0.5), trial(0, 0.5)], [-1, 0]),
        ([probe(0.5), probe(0.3, -2), trial(0, 0.4)], [-2, 0, -1]),
        ([probe(None, failure="it died"), trial(0, 0.4)], [0]),
    ],
)
def test_no_model_is_behind_the_probe(records: list[TrialRecord], expected: list[int]) -> None:
    assert [record.number for record in ranked(records)] == expected


def test_a_file_of_features_is_cut_before_what_a_kill_left_half_written(tmp_path: Path) -> None:
    path, names = tmp_path / "some.features", [f"{number:064x}" for number in range(4)]
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    begin(path, {"backbone": "plain"})
    with open(path, "ab") as stream:
        append(stream, names[:2], rows[:2], "fp32")
        append(stream, names[2:], rows[2:], "bf16")
    whole = path.stat().st_size
    features, end = read_features(path, names)
    assert (end, features.precision, count_rows(path)) == (whole, "bf16", 4)
    assert np.array_equal(features.of(names[::-1]), rows[::-1])
    for damage in (lambda content: content[:-1], lambda content: content[:-1] + b"\xff"):
        content = path.read_bytes()
        path.write_bytes(damage(content))
        features, end = read_features(path, names)
        assert set(features.places) == set(names[:2])
        assert end < whole
        path.write_bytes(content)


def test_settings_of_a_run_say_where_its_head_starts() -> None:
    assert TrainConfig(dataset="photos").head == "new"
    asked = SearchConfig(dataset="photos", weights="file")
    assert asked.trial(backbone="b", lr=1, batch_size=1, seed=1, head="probe").head == "probe"
