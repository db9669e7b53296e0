"""The registered optimisers: against their libraries, interrupted anywhere, and what a run says and keeps of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_folder
from schedulefree import AdamWScheduleFree
from test_trainer import CPU, network, pixels, same, settings, training
from tiny_runs import write_plugin
from torch.nn import functional as F

import automl_pt
from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core.errors import CheckpointError, ConfigError, PluginError, UnknownNameError
from automl_pt.images.preprocessing import scale_and_offset
from automl_pt.plugins.manager import load_plugins
from automl_pt.plugins.optimizers import Optimizer
from automl_pt.runs.published import default_lr, with_published
from automl_pt.testing import check_optimizer
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.cuda.graph import GraphedStep, why_not
from automl_pt.training.loop import Training, train
from automl_pt.training.optimizers import LibraryOptimizer
from automl_pt.training.step import Step, make_step_fn

LIBRARIES = ("adamw", "schedule-free-adamw")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PLUGINS = load_plugins()


def begun(name: str, *, precision: str = "fp32", scales: float = 1.0, **changes: Any) -> Training:
    """Return a training with the optimiser at its published values, unless `changes` say otherwise."""
    optimizer = PLUGINS.named(Optimizer, name)
    config = settings(optimizer=name, **{**optimizer.published, **changes})
    plain, model = training(settings()), network(dropout=0.3)
    factors = {key: scales if key.startswith("0.") else 1.0 for key, _ in model.named_parameters()}
    return Training(
        model,
        plain.train_loader,
        plain.val_loader,
        config,
        device=CPU,
        precision=precision,
        lr_scales=factors if scales != 1 else None,
        optimizer=optimizer,
    )


@pytest.mark.parametrize("name", ["sgd", *LIBRARIES])
def test_the_built_in_ones_keep_the_contract(name: str) -> None:
    check_optimizer(name)


def test_schedule_free_equals_the_plain_loop_of_its_authors() -> None:
    """Losses and weights are those at the average, whose batch-norm statistics come from a pass of training images."""
    optimizer = PLUGINS.named(Optimizer, "schedule-free-adamw")
    config = settings(optimizer=optimizer.name, **optimizer.published)
    ours = training(settings())
    ours = Training(
        network(), ours.train_loader, ours.val_loader, config, device=CPU, precision="fp32", optimizer=optimizer
    )
    results = list(train(ours))

    model, data, val = network(), pixels(23), pixels(10, seed=1)
    scale, offset = scale_and_offset(MEAN, STD)
    theirs = AdamWScheduleFree(model.parameters(), lr=0.0025, betas=(0.9, 0.999))
    for epoch in range(1, 4):
        order = torch.from_numpy(ours.train_loader.plan(epoch).order)
        batches = [
            (torch.from_numpy(data.images)[part].float() * scale + offset, torch.from_numpy(data.labels)[part])
            for part in order.split(ours.train_loader.batch_sizes)
        ]
        model.train()
        theirs.train()
        for images, labels in batches:
            theirs.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            theirs.step()
        kept = [tensor.clone() for tensor in model.state_dict().values()]
        theirs.eval()
        model[1].reset_running_stats()
        model[1].momentum = None
        with torch.no_grad():
            for images, _ in batches:
                model(images)
        model.eval()
        with torch.inference_mode():
            logits = model(torch.from_numpy(val.images).float() * scale + offset)
        labels = torch.from_numpy(val.labels)
        assert results[epoch - 1].val_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
        if epoch == 3:
            assert same(ours.averaged.module, model)
        theirs.train()
        model.load_state_dict(dict(zip(model.state_dict(), kept, strict=True)))  # their way back rounds; ours does not
        model[1].momentum = 0.1
    assert not same(ours.model, ours.averaged.module)


CASES = [
    {},
    {"micro_batch_size": 2},
    {"ema_decay": 0.9, "clip_grad_norm": 0.5},
    {"scales": 0.5, "weight_decay": 0.01, "weight_decay_on": "weights", "keep": "last"},
    {"precision": "bf16", "label_smoothing": 0.1, "class_weights": "balanced"},
    {"precision": "fp16"},
    {"schedule": "cosine", "warmup_epochs": 1, "batch_norm": "keep"},
]


@pytest.mark.parametrize("changes", CASES, ids=lambda case: "-".join(case) or "plain")
@pytest.mark.parametrize("name", LIBRARIES)
def test_interrupted_at_any_step_it_ends_as_an_unbroken_run(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    whole, kept = begun(name, **changes), []
    results = list(train(whole, save_model=lambda state, result, past: kept.append(_copy(state))))
    steps = len(whole.train_loader.batch_sizes)
    for stop in (1, steps, steps + 2, 3 * steps - 1):
        checkpoints, taken = Checkpoints(tmp_path / f"{stop}"), [0]
        (tmp_path / f"{stop}").mkdir()

        def enough(done: int, batches: int, taken: list[int] = taken, stop: int = stop) -> bool:
            taken[0] += 1
            return taken[0] == stop

        begun_once, saved = begun(name, **changes), []
        list(train(begun_once, checkpoints=checkpoints, after_step=enough))
        again = begun(name, **changes)
        again.restore(checkpoints)
        rest = list(train(again, save_model=lambda state, result, past, saved=saved: saved.append(_copy(state))))
        assert same(whole.model, again.model)
        assert [r.val_loss for r in rest] == [r.val_loss for r in results[-len(rest) :]]
        assert all(torch.equal(value, saved[-1][key]) for key, value in kept[-1].items()) or not results[-1].is_best


def _copy(state: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in state.items()}


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_saved_are_those_evaluated(keep: str) -> None:
    ours, saved = begun("schedule-free-adamw", keep=keep, epochs=2), []
    losses = [r.val_loss for r in train(ours, save_model=lambda s, r, p: saved.append((_copy(s), r.val_loss)))]
    state, loss = saved[-1]
    model = network(dropout=0.3)
    model.load_state_dict(state)
    assert ours._evaluate(model).loss == loss
    assert loss == (min(losses) if keep == "best" else losses[-1])


def test_norms_and_biases_are_left_out_of_the_decay_where_that_is_asked_for() -> None:
    for name in ("sgd", *LIBRARIES):
        ours = begun(name, weight_decay=0.5, weight_decay_on="weights", lr=0.1, momentum=0.9)
        before = {key: value.clone() for key, value in ours.model.named_parameters()}
        for value in ours.model.parameters():
            value.grad = torch.zeros_like(value)
        ours.step.optimizer.lr = 0.1
        ours.step.optimizer.step()
        moved = {key for key, value in ours.model.named_parameters() if not torch.equal(value, before[key])}
        assert moved == {"0.weight", "5.weight"}, name


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_step_that_is_undone_leaves_no_trace(name: str) -> None:
    ours, plain = begun(name), begun(name)
    images, labels = next(iter(ours.train_loader.epoch(1)))
    with ours.step.restoring_state():
        ours.step(images, labels, 0.1)
    assert [r.val_loss for r in train(ours)] == [r.val_loss for r in train(plain)]


def test_adamw_is_recorded_with_its_state_in_place() -> None:
    """The recorded step is played by calling it again: it writes where the checkpoint reads."""
    ours, plain = begun("adamw"), begun("adamw")

    def run_again(work: Any) -> Any:
        work()  # a trial run, as before a recording
        return work

    ours.take_step = GraphedStep(ours.step, ours.train_loader.batch_sizes[0], run_again)
    # the rate is a float32 there
    assert [r.val_loss for r in train(ours)] == pytest.approx([r.val_loss for r in train(plain)], rel=1e-3)
    steps = 3 * len(ours.train_loader.batch_sizes)
    assert {int(state["step"]) for state in ours.state_dict()["optimizer"]["state"].values()} == {steps}


def test_an_optimiser_that_fails_only_while_recorded_runs_steps_one_by_one() -> None:
    ours, plain = begun("adamw"), begun("adamw")

    def refuses(work: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ours.step.optimizer.inner, "step", lambda: torch.tensor(1).new_empty(-1))
            work()

    ours.take_step = GraphedStep(ours.step, ours.train_loader.batch_sizes[0], refuses)
    results = list(train(ours))
    assert (
        "steps are not recorded as a CUDA graph but run one by one: an optimiser's step() failed"
        in (results[0].notes[0])
    )
    list(train(plain))
    assert same(ours.model, plain.model)


def test_schedule_free_says_why_it_is_not_recorded() -> None:
    ours = begun("schedule-free-adamw")
    ours.step.device = torch.device("cuda")
    told = "the optimiser schedule-free-adamw keeps numbers outside the device"
    assert why_not(ours.step) == told
    take, by_index = make_step_fn(ours.step, ours.train_loader, ours.config)
    assert (take, by_index) == (ours.step, False)
    assert ours.step.notes == [f"steps are not recorded as a CUDA graph but run one by one: {told}"]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_averaged_weights_that_are_saved_late_are_those_saved_at_once(tmp_path: Path, keep: str) -> None:
    found: dict[float, list[Any]] = {0.0: [], 1e-9: []}
    for share, saved in found.items():
        ours = begun("schedule-free-adamw", keep=keep, epochs=4, patience=99)

        def save(state: Any, result: Any, past: Any, saved: list[Any] = saved) -> None:
            saved.append((result.epoch, len(past), _copy(state)))

        results = train(ours, checkpoints=Checkpoints(tmp_path / str(share)), save_model=save, share=share)
        for _ in range(3):
            next(results)
        results.close()  # type: ignore[attr-defined]
    at_once, late = found[0.0][-1], found[1e-9][-1]
    assert len(found[1e-9]) == 1
    assert late[:2] == at_once[:2]
    assert all(value.equal(late[2][name]) for name, value in at_once[2].items())


@pytest.mark.parametrize(
    ("given", "expected", "named"),
    [
        ({}, {"lr": 0.001, "weight_decay": 1e-4, "schedule": "cosine"}, None),
        (
            {"optimizer": "adamw", "pretrained": False},
            {"lr": 0.001, "weight_decay": 1e-2, "schedule": "cosine"},
            "lr 0.001, momentum 0.9, weight_decay 0.01 are its published values, because",
        ),
        ({"optimizer": "adamw"}, {"lr": 2e-4, "weight_decay": 0.0, "momentum": 0.9}, "values for fine-tuning"),
        ({"optimizer": "adamw", "pretrained": False, "weights": "w.safetensors"}, {"lr": 2e-4}, "for fine-tuning"),
        ({"optimizer": "adamw", "freeze": "backbone"}, {"lr": 0.001, "weight_decay": 1e-2}, "lr 0.001"),
        ({"optimizer": "adamw", "weight_decay": 1e-4, "lr": 0.1, "momentum": 0.5}, {"lr": 0.1, "momentum": 0.5}, None),
        (
            {"optimizer": "schedule-free-adamw", "lr": 0.001},
            {"lr": 0.001, "weight_decay": 0.0, "schedule": "constant"},
            "schedule constant",
        ),
    ],
)
def test_what_is_not_given_is_published(
    given: dict[str, Any], expected: dict[str, Any], named: str | None, tmp_path: Path
) -> None:
    config, notes = with_published(TrainConfig(dataset=str(tmp_path), **given), PLUGINS)
    assert {name: getattr(config, name) for name in expected} == expected
    assert [named in note for note in notes] == ([True] if named else [])
    again, _ = with_published(config, PLUGINS)
    assert again == config


def test_a_rate_published_for_random_weights_alone_is_said_to_be_one(tmp_path: Path) -> None:
    given: dict[str, Any] = {"dataset": str(tmp_path), "optimizer": "schedule-free-adamw"}
    _, notes = with_published(TrainConfig(**given, pretrained=True), PLUGINS)
    assert notes[1].endswith(
        "none for fine-tuning, so that it may be too high; give --lr (a search tries 3e-05 to 0.003)"
    )
    for other in ({"pretrained": False}, {"pretrained": True, "lr": 1e-4}, {"pretrained": True, "freeze": "backbone"}):
        assert len(with_published(TrainConfig(**given, **other), PLUGINS)[1]) == 1


def test_a_search_draws_from_the_optimisers_range() -> None:
    config, _ = with_published(SearchConfig(dataset="x", optimizer="adamw"), PLUGINS)
    ranges = ((3e-5, 1e-2), (1e-5, 1e-3))
    assert config.for_start(pretrained=False, ranges=ranges).lr == ranges[0]
    assert config.for_start(pretrained=True, ranges=ranges).lr == ranges[1]
    assert [default_lr(config.for_start(pretrained=start), PLUGINS) for start in (False, True)] == [1e-3, 2e-4]
    assert SearchConfig(dataset="x", lr=(0.1, 0.2)).for_start(pretrained=True, ranges=ranges).lr == (0.1, 0.2)


def test_errors_name_the_optimiser() -> None:
    with pytest.raises(UnknownNameError, match=r"(?s)unknown optimizer.*did you mean 'adamw'"):
        with_published(TrainConfig(dataset="x", optimizer="adamv"), PLUGINS)
    given: dict[str, Any] = {"optimizer": "schedule-free-adamw", "momentum": 0.0, "pretrained": False}
    with pytest.raises(ConfigError, match="momentum: schedule-free-adamw needs one above 0, got 0"):
        with_published(TrainConfig(dataset="x", **given), PLUGINS)
    with pytest.raises(PluginError, match=r"(?s)returns a torch.optim.Optimizer.*mine: object, without step"):
        check_optimizer(Optimizer("mine", lambda groups, momentum: object()))
    with pytest.raises(PluginError, match=r"(?s)`published` holds values.*nesterov"):
        check_optimizer(Optimizer("mine", None, {"nesterov": 1.0}))


def test_a_run_says_what_it_took_and_is_resumed_with_no_other(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"train": 6, "val": 3}) / "train"
    how = {"output": tmp_path / "run", "plugins": str(write_plugin(tmp_path)), "backbone": "tiny", "batch_size": 4}
    (first, *_) = automl_pt.train(str(folder), epochs=1, optimizer="schedule-free-adamw", **how)
    assert any("lr 0.0025" in note and "published" in note for note in first.notes)
    with pytest.raises(CheckpointError, match="optimizer was 'schedule-free-adamw' and is 'sgd'"):
        list(automl_pt.train(str(folder), epochs=1, **how))
    assert list(automl_pt.train(str(folder), epochs=1, optimizer="schedule-free-adamw", **how)) == []


def test_the_documented_optimiser_imports_no_library_of_optimisers(tmp_path: Path) -> None:
    folder, plugin = write_folder(tmp_path / "images", {"train": 6}) / "train", write_plugin(tmp_path)
    code = (
        "import sys, automl_pt\n"
        f"list(automl_pt.train({str(folder)!r}, plugins={str(plugin)!r}, output={str(tmp_path / 'run')!r}, "
        "backbone='tiny', epochs=1, batch_size=4, device='cpu', threads=1))\n"
        "assert not {'torch._dynamo', 'schedulefree'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_state_is_that_of_the_library() -> None:
    ours = begun("adamw")
    assert isinstance(ours.step.optimizer, LibraryOptimizer)
    assert isinstance(ours.step, Step)
    assert set(ours.state_dict()["optimizer"]) == {"state", "param_groups"}
