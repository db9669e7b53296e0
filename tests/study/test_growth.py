"""Training over and over keeps nothing: neither the networks of earlier trials nor, over many, memory of any kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alive import alive

from automl_pt import train
from automl_pt.config import SearchConfig
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.study.executor.base import Call, TrialSpec
from automl_pt.study.executor.calls import returned
from automl_pt.study.executor.messages import IteratorEnded, Message, StudyFailed, TrialCrashed, TrialFailed
from automl_pt.study.executor.processes import LocalEngine

FILE = str(Path(__file__).parents[1] / "strange_networks.py")
#: trials before the first that counts: libraries load what they need in these, and the allocator finds its size
FIRST = 3


def trials_in_one_worker(folder: Path, tmp_path: Path, backbone: str, count: int) -> list[dict[str, float]]:
    """Run trials one after another in the same process; return what it holds after each."""
    small = {"epochs": 1, "image_size": 32, "pretrained": False, "threads": 1, "device": "cpu"}
    config = SearchConfig(dataset=str(folder), backbones=(backbone,), plugins=(FILE,), workers=1, **small)
    manifest = tmp_path / "manifest.json"
    prepare(config, load_plugins((FILE,)), manifest=manifest)
    ours = LocalEngine("automl_pt.study.executor.trial_run:make_trial", ["cpu"], threads=1, logs=tmp_path / "logs")
    held = list[dict[str, float]]()
    try:
        for number in range(count):
            trial, output = config.trial(backbone=backbone, lr=0.01, batch_size=8, seed=number), tmp_path / str(number)
            ours.start(TrialSpec(number, trial, output, 1, manifest))
            told = list[Message]()
            while not any(isinstance(message, IteratorEnded) for message in told):
                told = ours.wait(60)
                assert not any(isinstance(message, TrialFailed | TrialCrashed | StudyFailed) for message in told), told
            shutil.rmtree(output)
            held.append(returned(ours.call(Call("alive:alive", {}, lambda caller: None, "the count"))))
    finally:
        ours.close()
    return held


def trainings_in_this_process(folder: Path, tmp_path: Path, backbone: str, count: int) -> list[dict[str, float]]:
    """Train one after another here; return what this process holds after each."""
    held = list[dict[str, float]]()
    for number in range(count):
        small = {"epochs": 1, "batch_size": 8, "image_size": 32, "pretrained": False, "threads": 1, "device": "cpu"}
        output = tmp_path / f"run-{number}"
        list(train(str(folder), backbone=backbone, output=output, plugins=[FILE], **small))
        shutil.rmtree(output)
        held.append(alive())
    return held


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("run", [trials_in_one_worker, trainings_in_this_process])
def test_nothing_of_earlier_networks_is_alive(run: object, tiny_folder: Path, tmp_path: Path) -> None:
    held = run(tiny_folder, tmp_path, "strange/tied", 4)  # type: ignore[operator]
    assert len({state["parameters"] for state in held}) == 1


@pytest.mark.slow  # minutes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("run", [trials_in_one_worker, trainings_in_this_process])
def test_a_hundred_take_the_memory_of_a_few(run: object, tiny_folder: Path, tmp_path: Path) -> None:
    held = run(tiny_folder, tmp_path, "resnet18", 100)  # type: ignore[operator]
    assert len({state["parameters"] for state in held}) == 1
    assert held[-1]["mb"] - held[FIRST - 1]["mb"] < 100 - FIRST
