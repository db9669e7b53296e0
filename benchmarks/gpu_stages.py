"""The stages of `gpu_day.py`: each is called in a process of its own, as `gpu_stages.py STAGE`.

The device is named by the variable GPU_DAY_DEVICE; on a CPU all sizes are tiny. What a stage finds it tells at once, as
a line of JSON, so that a time limit loses nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IMPORTED = time.perf_counter()

import numpy as np  # noqa: E402  # the clock above is read before the imports that it times
import torch  # noqa: E402

from automl_pt.backbones.build import build_model  # noqa: E402
from automl_pt.config import TrainConfig  # noqa: E402
from automl_pt.core.out_of_memory import Recording  # noqa: E402
from automl_pt.data.device_split import StreamedSplit  # noqa: E402
from automl_pt.data.loader import Loader  # noqa: E402
from automl_pt.data.pixels import Pixels, Rows  # noqa: E402
from automl_pt.data.policy import make_policy  # noqa: E402
from automl_pt.dataset import Hints  # noqa: E402
from automl_pt.plugins.manager import load_plugins  # noqa: E402
from automl_pt.plugins.optimizers import Optimizer  # noqa: E402
from automl_pt.runs.setup import evaluation_batch  # noqa: E402
from automl_pt.training.checkpoint import Checkpoints  # noqa: E402
from automl_pt.training.device import choose_precision, synchronise  # noqa: E402
from automl_pt.training.layout import arrange, has_channels_last  # noqa: E402
from automl_pt.training.loop import Training, train  # noqa: E402

DEVICE = torch.device(os.environ.get("GPU_DAY_DEVICE", "cuda:0"))
ON_GPU = DEVICE.type == "cuda"
#: the network of a dry run, and the plugin that has it
TESTS = ("tests/training", "tests/data", "tests/runs")
TINY, PLUGIN = "tiny", str(Path(__file__).with_name("tiny_backbone.py"))
#: how steps are taken by default
HOW = "recorded ones" if ON_GPU else "single ones, as nothing is recorded on a CPU"
FAMILIES = (
    "resnet18",
    "densenet121",
    "timm/efficientnet_b0",
    "timm/convnext_tiny",
    "timm/regnety_008",
    "timm/vgg11_bn",
)
#: network, side, batch, and the eager ceiling that was estimated for one H200 in images per second
CASES: list[tuple[str, int, int, int | None]] = [
    ("resnet18", 32, 32, None),
    ("resnet18", 64, 16, None),
    ("resnet18", 64, 64, None),
    ("resnet18", 64, 256, 301_000),
    ("resnet50", 224, 128, 7_000),
    ("densenet121", 224, 128, 5_800),
]


def tell(**found: Any) -> None:
    print(json.dumps({"told": found}), flush=True)


#: what a stage found to be wrong
WRONG: list[str] = []


def judge(name: str, found: float | list[str], right: float | list[str]) -> None:
    """Tell a finding with what would be right: a number at most that, or just those words."""
    is_right = found <= right if isinstance(found, float) and isinstance(right, float) else found == right
    tell(**{name: {"found": found, "at_most" if isinstance(right, float) else "expected": right, "right": is_right}})
    if not is_right:
        WRONG.append(name)


def drawn(count: int, side: int, seed: int = 0) -> Pixels:
    """Return noisy images whose brightness depends on their class."""
    random, labels = np.random.default_rng(seed), np.arange(count) % 4
    images = random.integers(0, 128, (count, 3, side, side), dtype=np.uint8)
    images += (labels * 30).astype(np.uint8)[:, None, None, None]
    return Pixels(Rows(images, np.arange(count)), labels.astype(np.int64), tuple(map(str, range(count))))


def training(
    name: str,
    side: int,
    batch: int,
    count: int,
    *,
    device: torch.device = DEVICE,
    precision: str = "auto",
    streamed: bool = False,
    dropout: float = 0.0,
    **settings: Any,
) -> Training:
    """Return a training on drawn images, arranged as a run arranges it."""
    Recording.replaceable = True  # this process is one
    config = TrainConfig(
        **{"dataset": "drawn", "batch_size": batch, "lr": 0.02, "epochs": 2, "pretrained": False, **settings}
    )
    plugins = load_plugins(() if ON_GPU else (PLUGIN,))
    backbone, policy = plugins.backbone(name), make_policy(config.augmentation, config.transforms, plugins, side, 4)
    format_ = choose_precision(precision, device)
    model = build_model(backbone, 4, side, seed=1)
    if dropout:
        last = [one for one in model.modules() if isinstance(one, torch.nn.Linear)][-1]
        last.register_forward_pre_hook(
            lambda module, given: torch.nn.functional.dropout(given[0], dropout, module.training)
        )
    model = arrange(model, device, format_)
    shared: dict[str, Any] = {"mean": backbone.mean, "std": backbone.std, "seed": 1, "device": device}
    shared |= {"hints": Hints(), "channels_last": has_channels_last(device, format_)}
    loader = Loader(drawn(count, side), batch_size=batch, augmented_epochs=9, shuffle=True, policy=policy, **shared)
    if streamed:
        options = {key: shared[key] for key in ("mean", "std", "channels_last")}
        loader.resident, loader.streamed = None, StreamedSplit(loader.images, loader.labels, batch, device, **options)
    val = Loader(
        drawn(count // 4, side, 1),
        batch_size=evaluation_batch(side, device),
        augmented_epochs=0,
        shuffle=False,
        **shared,
    )
    optimizer = plugins.named(Optimizer, config.optimizer)
    return Training(model, loader, val, config, device=device, precision=format_, optimizer=optimizer)


def steps(ours: Training, count: int) -> list[float]:
    """Take some steps of the run's first epochs; return their losses."""
    losses: list[float] = []
    torch.manual_seed(1)
    ours.model.train()
    while len(losses) < count:
        ours.progress.batches_done = 0
        for batch in ours._batches(1):
            losses.append(float(ours.take_step(*batch, lr=0.02)))
            if len(losses) == count:
                break
    return losses


def rate(ours: Training, seconds: float) -> float:
    """Return the images per second of whole epochs without validation, after one that does not count."""
    images, done = sum(ours.train_loader.batch_sizes), 0

    def epoch() -> None:
        ours.progress.batches_done = 0
        ours.train_epoch(lambda done, batches: False, lambda: None)

    epoch()
    synchronise(DEVICE)
    began = time.perf_counter()
    while done == 0 or time.perf_counter() - began < seconds:
        epoch()
        synchronise(DEVICE)
        done += images
    return done / (time.perf_counter() - began)


def machine() -> None:
    tell(import_seconds=round(time.perf_counter() - IMPORTED, 1), torch=torch.__version__, cuda=torch.version.cuda)
    if not ON_GPU:
        return
    properties = torch.cuda.get_device_properties(DEVICE)
    tell(capability=f"{properties.major}.{properties.minor}", gib=round(properties.total_memory / 2**30, 1))
    tell(
        gpus=torch.cuda.device_count(), cudnn=torch.backends.cudnn.version(), precision=choose_precision("auto", DEVICE)
    )


def tests() -> None:
    if not ON_GPU:
        return tell(left_out="no GPU")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "gpu and not slow",
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            *TESTS,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    tell(pytest=(done.stdout + done.stderr).strip().splitlines()[-40:])
    return None if done.returncode == 0 else sys.exit(done.returncode)


def equal() -> None:
    """CPU against GPU in float32; recorded against single steps; which families are recorded."""
    count = 20 if ON_GPU else 4
    name, side = ("resnet18", 32) if ON_GPU else (TINY, 16)
    cpu = steps(training(name, side, 16, 80, device=torch.device("cpu"), precision="fp32"), count)
    own = steps(training(name, side, 16, 80, precision="fp32", cuda_graph=False), count)
    apart = max(abs(a - b) / max(abs(a), 1e-6) for a, b in zip(cpu, own, strict=True))
    judge(f"losses of {count} steps in fp32, CPU against {DEVICE}", apart, 0.05)
    ways: list[dict[str, Any]] = [
        *({"precision": precision, "dropout": dropout} for dropout in (0.0, 0.3) for precision in ("fp32", "auto")),
        {"optimizer": "adamw"},
        {"augmentation": "mixup"},
    ]
    for way in ways:
        sides = [training(name, side, 16, 80, cuda_graph=graph, **way) for graph in (False, True)]
        single, recorded = (steps(one, count) for one in sides)
        said = ", ".join(f"{key} {value}" for key, value in way.items())
        apart = max(abs(a - b) for a, b in zip(single, recorded, strict=True))
        judge(f"losses of single steps against {HOW}, {said}", apart, 0.05)
        if ON_GPU:
            judge(f"notes, {said}", sides[1].step.notes, [])
    recorded_families = {}
    for family in FAMILIES if ON_GPU else (TINY,):
        ours = training(family, 64 if ON_GPU else 16, 16, 48)
        steps(ours, 4)
        recorded_families[family] = ours.step.notes or HOW
        tell(families=recorded_families)


def resume() -> None:
    """Stop in the middle of an epoch, continue in a new process, and compare the weights."""
    name, side = ("resnet18", 32) if ON_GPU else (TINY, 16)
    torch.backends.cudnn.deterministic = True  # else some gradients differ in the last bits from run to run
    whole = training(name, side, 16, 80, dropout=0.3)
    list(train(whole))
    with tempfile.TemporaryDirectory() as folder:
        broken = training(name, side, 16, 80, dropout=0.3)
        list(train(broken, checkpoints=Checkpoints(Path(folder)), after_step=lambda done, batches: done == 2))
        if ON_GPU:
            subprocess.run([sys.executable, __file__, "resumed", folder], check=True)
        else:
            resumed(folder)
        found = torch.load(Path(folder) / "weights", weights_only=True)
    expected = {key: value.cpu().double() for key, value in whole.model.state_dict().items()}
    apart = max(float((found[key].double() - value).abs().max()) for key, value in expected.items())
    judge("weights of a resumed run, largest difference", apart, 0.0)


def resumed(folder: str | None = None) -> None:
    """Continue the run of `resume`, in a process of its own on a GPU, and keep its weights."""
    place = Path(folder or sys.argv[2])
    torch.backends.cudnn.deterministic = True
    ours = training("resnet18" if ON_GPU else TINY, 32 if ON_GPU else 16, 16, 80, dropout=0.3)
    ours.restore(Checkpoints(place))
    list(train(ours))
    torch.save({key: value.cpu() for key, value in ours.model.state_dict().items()}, place / "weights")


def memory() -> None:
    """Cut the process's share of memory so that the batch, then the rest, does not fit; the run must end by itself."""
    name, side, batch, count = ("resnet50", 224, 128, 300) if ON_GPU else (TINY, 16, 8, 20)
    peak = 0
    for share in (None, 0.9, 0.75, 0.5, 0.25):
        if ON_GPU:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(1.0 if share is None else share * peak)
        ours = training(name, side, batch, count, epochs=1)
        ours.fit_into(0)
        notes = [note for result in train(ours) for note in result.notes]
        if ON_GPU and share is None:
            peak = torch.cuda.max_memory_reserved(DEVICE) / torch.cuda.get_device_properties(DEVICE).total_memory
        tell(**{f"share {share}": {"micro_batch": ours.step.micro_batch_size, "notes": notes}})
        del ours
        if not ON_GPU:
            break


def faults() -> None:
    """Images that are sent batch by batch beside a recording; a device assert in one trial, and the next trial."""
    from automl_pt.study.executor.base import TrialSpec
    from automl_pt.study.executor.messages import TrialCrashed, TrialFailed
    from automl_pt.study.executor.processes import LocalEngine

    name, side = ("resnet18", 64) if ON_GPU else (TINY, 16)
    sides = [training(name, side, 16, 80, streamed=streamed) for streamed in (False, True)]
    losses = [steps(one, 8) for one in sides]
    apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
    judge("losses, images on the device against images sent batch by batch", apart, 0.05)
    judge("notes, images sent batch by batch", sides[1].step.notes, [])
    told = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        engine = LocalEngine("gpu_stages:asserting", [str(DEVICE)], threads=1, logs=Path(folder) / "logs")
        for number in (0, 1):
            config = TrainConfig(dataset="drawn", device=str(DEVICE))
            engine.start(TrialSpec(number, config, Path(folder), 2, Path(folder)))
            while not (messages := engine.wait(30)):
                pass
            match messages[0]:
                case TrialCrashed(reason=reason) | TrialFailed(reason=reason):
                    told.append(reason)
                case _:
                    told.append("ended")
        engine.close()
    crash = "its GPU failed (CUDA error: device-side assert triggered)"
    judge("a trial that breaks the device, and the next one", told, [crash, "ended"])


def asserting(spec: Any, should_stop: Any) -> Iterator[Any]:
    """Be a trial whose first number breaks the device for its process."""
    device = torch.device(spec.config.device)
    if spec.number == 0 and device.type == "cpu":
        raise RuntimeError("CUDA error: device-side assert triggered")
    values = torch.ones(4, device=device)
    values[torch.tensor([99 if spec.number == 0 else 1], device=device)].sum().item()
    yield from ()


def main() -> None:
    import gpu_speed

    stage = {one.__name__: one for one in (machine, tests, equal, resume, resumed, memory, faults)}
    stage |= {one.__name__: one for one in gpu_speed.STAGES}
    if not ON_GPU:
        torch.set_num_threads(1)
    stage[sys.argv[1]]()
    if WRONG:
        sys.exit(f"wrong: {'; '.join(WRONG)}")


if __name__ == "__main__":
    main()
