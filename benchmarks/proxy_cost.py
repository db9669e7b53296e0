"""What a proxy run costs besides its steps: with a network of its own each time, and with the one of the run before.

    python benchmarks/proxy_cost.py [NETWORK ...]

Trials of one worker process with a seed and a rate each make their proxy runs one after the other, on drawn images of
64 px, one thread. The fixed cost is all that stands before the first step: building, rehearsing and arranging the
network, and trying how much memory a step takes. Counted are the networks, the rehearsals, PyTorch's operations and
CPU seconds of a proxy run, the lowest of the trials after the first one, which loads libraries. On a GPU a recording of
the step is saved as well. Both ways rank alike to the last bit, which is checked.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from automl_pt.config import SearchConfig
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import network
from automl_pt.study import proxy_run
from automl_pt.study.executor.base import TrialSpec
from automl_pt.training.loop import Training

#: network, whether pretrained; the second needs the plugin automl-pt-lite
CASES = [("resnet18", False), ("densenet121", False), ("lite0", True)]
TRIALS, SIDE, BATCH = 6, 64, 16


class Operations(TorchDispatchMode):
    """Counts PyTorch's operations while it is active."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


class Fixed:
    """Adds up what the functions before the first step cost."""

    def __init__(self, *, operations: bool) -> None:
        self.operations, self.found = operations, dict.fromkeys(("cpu", "operations", "networks", "rehearsals"), 0.0)

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **options: Any) -> Any:
            began = time.process_time()
            if self.operations:
                with Operations() as counted:
                    result = function(*given, **options)
                self.found["operations"] += counted.count
            else:
                result = function(*given, **options)
            self.found["cpu"] += time.process_time() - began
            return result

        return called

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **options: Any) -> Any:
            self.found[name] += 1
            return function(*given, **options)

        return called


def folder(root: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for label in range(4):
            for index in range(count):
                path = root / split / str(label) / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    return root


def proxy_runs(name: str, pretrained: bool, images: Path, *, shared: bool, operations: bool) -> dict[str, Any]:
    """Make one proxy run for each trial; return its fixed cost and the losses."""
    options: dict[str, Any] = {"image_size": SIDE, "device": "cpu", "threads": 1, "epochs": 9}
    config = SearchConfig(dataset=str(images), backbones=(name,), pretrained=pretrained, **options)
    plugins, costs, losses = load_plugins(), [], []
    data = prepare(config.trial(backbone=name, lr=0.01, batch_size=BATCH, seed=0), plugins)
    kept = proxy_run.training_and_network, Training.fit_into, network.build_model, network.rehearse
    network.forget()
    for number in range(TRIALS):
        fixed = Fixed(operations=operations)
        proxy_run.training_and_network = fixed.timed(kept[0])
        Training.fit_into = fixed.timed(kept[1])  # type: ignore[method-assign]
        network.build_model = fixed.counted("networks", kept[2])
        network.rehearse = fixed.counted("rehearsals", kept[3])
        if not shared:
            network.forget()
        trial = config.trial(backbone=name, lr=0.01 * (number + 1), batch_size=BATCH, seed=number)
        spec = TrialSpec(number, trial, images / "none", 0.1, images / "none", (0.1,))
        losses += [found.rank_loss for found in proxy_run.proxy_runs(spec, lambda: False, data, plugins)]
        costs.append(fixed.found)
    proxy_run.training_and_network, Training.fit_into, network.build_model, network.rehearse = kept
    return {**{key: min(one[key] for one in costs[1:]) for key in costs[0]}, "losses": losses}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        images = folder(Path(place))
        for name, pretrained in [case for case in CASES if not sys.argv[1:] or case[0] in sys.argv[1:]]:
            row: dict[str, Any] = {"network": name, "start": "pretrained" if pretrained else "scratch"}
            for way, shared in (("own", False), ("shared", True)):
                counted = proxy_runs(name, pretrained, images, shared=shared, operations=True)
                timed = proxy_runs(name, pretrained, images, shared=shared, operations=False)
                row[way] = {key: int(counted[key]) for key in ("networks", "rehearsals", "operations")}
                row[way] |= {"cpu_seconds": round(timed["cpu"], 3)}
                row["losses"] = row.get("losses") or timed["losses"]
                assert row["losses"] == timed["losses"] == counted["losses"], "both ways must rank alike"
            print(row, flush=True)
            rows.append(row)
            record.write("proxy_cost", rows=rows)


if __name__ == "__main__":
    main()
