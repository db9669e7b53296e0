"""A subject whose trials cost nothing: loss curves that depend on learning rate, batch size and seed alone.

It keeps its epochs in a file and goes on from there, like a run. The dataset's name says what shall go wrong.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from ending_calls import end

from automl_pt.config import SearchConfig
from automl_pt.core.errors import DeviceError, RecordingError
from automl_pt.core.files import atomic_write, to_json, write_json
from automl_pt.core.out_of_memory import Recording
from automl_pt.plugins.manager import Plugins
from automl_pt.study.executor.base import Caller, TrialSpec
from automl_pt.study.executor.messages import ProxyRun
from automl_pt.study.extras.extras import Ended, MakeExtra
from automl_pt.study.objective import Objective, SearchData
from automl_pt.study.records import ModelComparison, TrialRecord
from automl_pt.training.result import EpochResult

#: the trial that lost this process's GPU
LOST: list[int] = []


def loss_at(lr: float, batch_size: int, seed: int, epoch: int, epochs: int) -> float:
    """Return a loss that is lowest at lr 0.05 (batch 16, square root rule) and falls with the epochs."""
    distance = abs(math.log10(lr / 0.05) - 0.5 * math.log10(batch_size / 16))
    noise = random.Random(f"{seed} {epoch}").uniform(-0.02, 0.02)
    return 0.2 + 0.3 * distance + 1.5 * math.exp(-3 * epoch / epochs) + noise


def make(spec: TrialSpec, should_stop: Callable[[], bool]) -> Iterator[EpochResult | ProxyRun]:
    path = spec.output / "history.jsonl"
    done = [EpochResult.from_dict(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    for level in (point for point in spec.ranked_at if point < 1 and not done):
        time.sleep(level * float(os.environ.get("TOY_SECONDS", "0")))
        if should_stop():
            return
        config = spec.config
        loss = loss_at(config.lr, config.batch_size, config.seed, level, config.epochs)
        yield ProxyRun(level, math.nan if config.dataset == f"early-{spec.number}" else loss, 0.003)
    yield from done
    if done and done[-1].reason is not None:
        return
    for epoch in range(len(done) + 1, spec.config.epochs + 1):
        time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
        if should_stop():
            return
        go_wrong(spec, epoch)
        config = spec.config
        loss = loss_at(config.lr, config.batch_size, config.seed, epoch, config.epochs)
        diverged = config.dataset == f"diverge-{spec.number}" and epoch == 2
        if diverged:
            loss = math.nan
        reason = "diverged" if diverged else "completed" if epoch == config.epochs else None
        is_best = not diverged and all(loss < result.val_loss for result in done)
        result = EpochResult(epoch, loss, loss, 0.5, None, config.lr, 1.0, 0.0, 0, 0.01, is_best, reason=reason)
        done.append(result)
        if is_best:
            write_json(spec.output / "model.json", {"trial": spec.number, "epoch": epoch, "loss": loss})
        (spec.output / "checkpoints").mkdir(parents=True, exist_ok=True)
        atomic_write(path, "".join(to_json(entry.to_dict()) + "\n" for entry in done))
        yield result
        if diverged:
            return


def go_wrong(spec: TrialSpec, epoch: int) -> None:
    """Fail, crash, hang, as the dataset's name says: `KIND-TRIAL`, at epoch 2; `late-EPOCH` fails all.

    `several-A,B` fails trials A and B in their first epoch.
    """
    kind, _, number = spec.config.dataset.partition("-")
    if LOST:
        spec.output.mkdir(parents=True, exist_ok=True)
        (spec.output / "lost").touch()
        raise RuntimeError("CUDA error: device-side assert triggered\nmore lines")
    if kind == "several" and str(spec.number) in number.split(","):
        raise ValueError("this trial was told to fail")
    if kind == "late" and number == str(epoch):
        raise ValueError("this trial was told to fail")
    if number != str(spec.number) or epoch != 2:
        return
    mark = spec.output / "crashed"
    if kind == "fail":
        raise ValueError("this trial was told to fail")
    if kind == "memory":
        raise MemoryError
    if kind == "fatal":
        raise DeviceError("a device must stay", given="cuda:7", remedy="plug it in")
    if kind == "crash" or (kind == "crashonce" and not mark.exists()):
        spec.output.mkdir(parents=True, exist_ok=True)
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "lost" and not mark.with_name("lost").exists():
        LOST.append(spec.number)  # every later trial of this process fails, too
        go_wrong(spec, epoch)
    if kind == "unrecorded" and Recording.forbidden is None:
        assert Recording.replaceable
        raise RecordingError(RuntimeError("operation not permitted when stream is capturing"))
    if kind == "hang":
        time.sleep(3600)


def prepare(config: SearchConfig, manifest: Path, plugins: Plugins | None) -> SearchData:
    write_json(manifest, {"seed": config.seed})
    # so few that runs of 9 epochs are paused in their middle, so many that shorter ones are run in miniature twice
    images = 1500 if config.epochs >= 9 else 1800
    return SearchData(images, 200, 0, f"toy-{config.seed}", make)


def publish(source: Path, target: Path) -> None:
    atomic_write(target / "model.json", (source / "model.json").read_text())


def compare(
    config: SearchConfig,
    best: TrialRecord,
    runner_up: TrialRecord,
    directory: Path,
    plugins: Plugins | None,
    caller: Caller,
) -> ModelComparison | None:
    assert (directory / "trials" / str(best.number) / "model.json").exists()
    assert (directory / "trials" / str(runner_up.number) / "model.json").exists()
    assert best.value is not None
    assert runner_up.value is not None
    return ModelComparison(best.number, runner_up.number, runner_up.value - best.value, 0.01, 200, inside_noise=False)


def measure(
    config: SearchConfig, model: Path, manifest: Path, plugins: Plugins | None, caller: Caller
) -> dict[str, float] | None:
    return None


def hostile(step: str, config: SearchConfig) -> None:
    """End this process, or not, where the dataset's name is `after,STEP-HOW,...`."""
    for named in config.dataset.split(",")[1:]:
        if named.startswith(f"{step}-"):
            end(named.removeprefix(f"{step}-"), "", "cpu", 1, Caller())


def hostile_compare(config: SearchConfig, *given: Any) -> ModelComparison | None:
    hostile("compare", config)
    return compare(config, *given)


def hostile_measure(config: SearchConfig, *given: Any) -> dict[str, float]:
    hostile("test", config)
    return {"loss": 0.5, "accuracy": 0.75}


def report(config: SearchConfig, directory: Path, plugins: Plugins | None, caller: Caller) -> Path:
    hostile("report", config)
    atomic_write(directory / "report.html", "all is well")
    return directory / "report.html"


def makers() -> Mapping[str, MakeExtra]:
    def ensemble(ended: Ended) -> Generator[str, None, dict[str, Any] | None]:
        yield f"ensemble: of {len(ended.trials)} trials"
        hostile("ensemble", ended.config)
        return {"model": None, "members": [trial.number for trial in ended.trials], "test": None}

    return {"ensemble": ensemble}


TOY = Objective("toy_trial:TOY", prepare, "toy_trial:make", publish, compare, measure)
HOSTILE = Objective(
    "toy_trial:HOSTILE", prepare, "toy_trial:make", publish, hostile_compare, hostile_measure, report, makers
)
