"""What the search itself costs, and whether it keeps its promises; on trials that cost nothing, and on real ones.

    python benchmarks/search.py overhead     ask, report, tell and storage for 16 trials of 20 epochs
    python benchmarks/search.py timeout      overrun of ten time limits
    python benchmarks/search.py kills        random SIGKILLs of a small study; its trials against the unbroken study's
    python benchmarks/search.py kills-real   the same with the real trainer on drawn images, also with a worker process
    python benchmarks/search.py workers [FOLDER]     two workers against one on two cores, real trials

The last takes minutes. Sides are interleaved.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import record

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from toy_trial import TOY  # noqa: E402

from automl_pt.api.search import steps  # noqa: E402
from automl_pt.config import SearchConfig  # noqa: E402
from automl_pt.study.events import Finished  # noqa: E402
from automl_pt.study.records import StudyResult  # noqa: E402


def search(directory: Path, *, toy: bool = True, **settings: Any) -> StudyResult:
    config = SearchConfig(**{"dataset": "plain", "workers": 0, **settings})
    for event in steps(config, directory, objective=TOY if toy else None):
        if isinstance(event, Finished):
            return event.result
    raise AssertionError


def overhead() -> dict[str, Any]:
    """Time all of a toy search but its trials, which are timed in themselves; every epoch is reported."""
    from automl_pt.study.executor.inline import InlineEngine

    seconds, opening = [], []
    inner: list[float] = []
    wait = InlineEngine.wait

    def timed(self: InlineEngine, timeout: float) -> Any:
        began = time.perf_counter()
        try:
            return wait(self, timeout)
        finally:
            inner[-1] += time.perf_counter() - began

    InlineEngine.wait = timed  # type: ignore[method-assign]
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            inner.append(0.0)
            began = time.perf_counter()
            run = steps(
                SearchConfig(dataset="plain", workers=0, epochs=20, trials=16, pruner="none"),
                Path(folder, "toy"),
                objective=TOY,
            )
            next(run)
            opening.append(time.perf_counter() - began)
            for _ in run:
                pass
            seconds.append(time.perf_counter() - began - inner[-1])
    InlineEngine.wait = wait  # type: ignore[method-assign]
    print(
        f"16 trials x 20 epochs, all in full: {median(seconds):.2f} s (of it opening the study {median(opening):.2f} s)"
    )
    return {"seconds": seconds, "opening_seconds": opening}


def timeout() -> dict[str, Any]:
    os.environ["TOY_SECONDS"] = "0.1"
    with tempfile.TemporaryDirectory() as folder:  # so that no import falls into the first limit
        search(Path(folder, "toy"), epochs=1, trials=2, workers=2)
    rows = []
    for seconds in (3, 4, 5, 6, 7, 8, 9, 10, 12, 15):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            result = search(Path(folder, "toy"), epochs=9, trials=1000, timeout=float(seconds), workers=seconds % 2 * 2)
            took = time.monotonic() - began
            ended = sum(trial.state == "COMPLETE" for trial in result.trials)
            rows.append({"timeout": seconds, "took": round(took, 3), "complete": ended, "trials": len(result.trials)})
            print(f"{seconds:4} s: {took:6.2f} s ({took / seconds - 1:+.1%}), {ended} of {len(result.trials)} complete")
    worst = max(row["took"] / row["timeout"] - 1 for row in rows)
    print(f"worst overrun {worst:+.1%}")
    return {"rows": rows, "worst_overrun": worst}


def kills(count: int = 100) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed, storage in enumerate(["", "", f"journal:{folder}/study.log"]):
            trials = {}
            for name, number in (("unbroken", 0), (f"broken{seed}", count)):
                shutil.rmtree(Path(folder, name), ignore_errors=True)
                where = storage if number else ""
                command = [sys.executable, str(ROOT / "tests" / "kill_zygote.py"), f"{folder}/{name}"]
                out = subprocess.run(
                    [*command, str(number), "24", "9", where, str(seed)],
                    env=environment,
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.split()
                trials[bool(number)] = json.loads(Path(folder, name, "result.json").read_text())["trials"]
            rows.append(
                {
                    "storage": storage.partition(":")[0] or "sqlite",
                    "kills": int(out[0]),
                    "equal": trials[True] == trials[False],
                }
            )
            print(rows[-1], flush=True)
    return {"rows": rows}


def kills_real(count: int = 1000) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "AUTOML_PT_CACHE": f"{place}/cache"}

        def trials(kills: int, processes: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
            folder = Path(place, f"{kills}-{processes}-{seed}")
            command = [sys.executable, str(ROOT / "tests" / "kill_trainer.py"), str(folder)]
            command += [str(kills), str(processes), str(seed)]
            out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            found = json.loads((folder / "study" / "result.json").read_text())["trials"]
            return [{**trial, "seconds": None} for trial in found], json.loads(out)

        unbroken, _ = trials(0, 0, 0)
        for processes, seed in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5)]:
            broken, told = trials(count, processes, seed)
            rows.append({"workers": processes, "seed": seed, **told, "equal": broken == unbroken})
            print(rows[-1], flush=True)
    in_all = sum(trial["epochs"] for trial in unbroken)
    print(f"{sum(row['kills'] for row in rows)} kills of studies of {len(unbroken)} trials, {in_all} epochs")
    return {"rows": rows, "epochs": in_all, "trials": len(unbroken)}


def workers(folder: str = "") -> dict[str, Any]:
    """One worker with one thread against two with one thread each: trials per hour.

    Whole default searches of ResNet-18 at 64 px over a `folder`, or without one a few short trials of digits.
    """
    few: dict[str, Any] = {"dataset": "digits", "epochs": 2, "trials": 4, "batch_sizes": (32,), "pruner": "none"}
    whole = {"dataset": folder, "epochs": 5, "trials": 16, "backbones": ("resnet18",), "image_size": 64}
    whole["pretrained"] = False
    sides: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["AUTOML_PT_CACHE"] = cache
        if folder:  # decode for both sides
            search(Path(cache, "study"), toy=False, threads=1, **{**whole, "trials": 1, "epochs": 1})
        for _ in range(1 if folder else 3):  # one turn over a folder takes minutes
            for count in sides:
                with tempfile.TemporaryDirectory() as place:
                    began = time.monotonic()
                    search(Path(place, "study"), toy=False, workers=count, threads=1, **(whole if folder else few))
                    sides[count].append(round(time.monotonic() - began, 1))
                    print(count, "workers:", sides[count][-1], "s", flush=True)
    ratio = median(sides[1]) / median(sides[2])
    print(f"two workers against one: {ratio:.2f}x trials per hour {sides}")
    return {"folder": Path(folder).name, "seconds": {str(count): one for count, one in sides.items()}, "ratio": ratio}


SIDES = {"overhead": overhead, "timeout": timeout, "kills": kills, "kills-real": kills_real, "workers": workers}

if __name__ == "__main__":
    chosen, *folder = sys.argv[1:]
    name = "_".join(["search", chosen.replace("-", "_"), *(Path(one).name for one in folder)])
    record.write(name, **SIDES[chosen](*folder))
