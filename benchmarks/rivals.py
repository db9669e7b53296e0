"""What needs no search against our search: untuned optimisers, a rate finder, a grid, and Optuna's defaults.

    python benchmarks/rivals.py FOLDER [FOLDER ...] [--images 0] [--seeds 1 2 3] [--epochs 5] [--trials 16] [--side 64]
           [--backbone resnet18] [--weights FILE] [--arms sgd adamw ...] [--settings NAME=VALUE ...] [--table]

FOLDER holds {train,val,test}/CLASS/*. Arms run in turns, each in a process of its own, with one thread and from an
empty cache, so that imports and decoding count. The test split is measured once, on each arm's finished model. CPU
seconds are those of the arm's process before that. `--images N` takes about N training images, and a fifth as many to
validate on, evenly over the classes. A cell (set, seed, arm) in results/rivals.json is not run again; one that failed
is. `--table` runs nothing and prints what is there. With `--weights FILE` networks start from this file.

sgd, adamw, schedule-free-adamw: `automl-pt train` with the optimiser at its published values.
prodigy: the same with Prodigy, through a plugin; it needs `pip install prodigyopt`.
lr-find: fastai's range test (100 steps, rates from 1e-7 to 10, the point that it calls valley) in a plain loop, then
    `automl-pt train --lr` with the documented SGD.
sgd-grid: `automl-pt train` at six rates, of which the validation loss chooses.
search: `automl-pt search`; search-rivals: the same with `--rivals adamw,schedule-free-adamw`; search-optimizers: the
    same with `--search optimizer=sgd,adamw,schedule-free-adamw`; search-full, -median, -halving, -hyperband: the same
    with another `--pruner`; random-two: the default and two random trials, all in full.
optuna: Optuna's default sampler and pruner, which drive a plain float32 loop (search_rivals.py), with our ranges.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import record
from rival_arms import ARMS, DEFAULT_ARMS, Case, measured, run_arm

RESULTS = record.RESULTS / "rivals.json"
Cells = dict[str, dict[str, Any]]
NUMBERS = {"epochs": 5, "trials": 16, "side": 64}


def cell(arm: str, case: Case) -> dict[str, Any]:
    """Run one arm here; CPU seconds are those before the test split is read."""
    os.environ["AUTOML_PT_CACHE"] = f"{case.place}/cache"
    finished = run_arm(arm, case)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(one.ru_utime + one.ru_stime for one in used)
    return {"cpu_seconds": round(seconds, 1), **measured(finished, case.folder / "test")}


def in_process(arm: str, folder: Path, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Run one arm in a process of its own; one that fails has the last lines of its error."""
    words = [sys.executable, __file__, str(folder), "--cell", arm, "--seeds", str(seed), "--backbone", given.backbone]
    words += [word for name in NUMBERS for word in (f"--{name}", str(getattr(given, name)))]
    words += ["--weights", str(given.weights.resolve())] if given.weights else []
    words += ["--settings", *given.settings] if given.settings else []
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": " / ".join(line.strip() for line in done.stderr.strip().splitlines()[-3:])}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "load": round(os.getloadavg()[0], 1)}


def subset(folder: Path, images: int, place: Path) -> Path:
    """Link about `images` training images, evenly over the classes, a fifth as many to validate on, and all to test."""
    for split, count in (("train", images), ("val", images // 5), ("test", 0)):
        classes = sorted(path for path in (folder / split).iterdir() if path.is_dir())
        for path in classes:
            (place / split / path.name).mkdir(parents=True)
            for image in sorted(path.iterdir())[: -(-count // len(classes)) if count else None]:
                os.link(image, place / split / path.name / image.name)
    return place


def table(cells: Cells) -> str:
    """Return the cells as a Markdown table: a line for each arm of each set, means over the seeds that it has."""
    lines = ["| set | arm | seeds | CPU s | over sgd | test accuracy | test loss | validation loss |", "|---" * 8 + "|"]
    groups: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for key, figures in cells.items():
        base, seed, arm = key.rsplit(", ", 2)
        if "failed" in figures:
            lines.append(f"| {base} | {arm} | {seed} | failed: {figures['failed']} | | | | |")
        else:
            groups.setdefault((base, arm), {})[int(seed.removeprefix("seed "))] = figures
    for (base, arm), found in sorted(groups.items()):
        plain = groups.get((base, "sgd"), {})
        ratios = [found[seed]["cpu_seconds"] / plain[seed]["cpu_seconds"] for seed in found if seed in plain]
        means = {name: fmean(one[name] for one in found.values()) for name in ("cpu_seconds", "test_loss", "val_loss")}
        accuracy = fmean(one["test_accuracy"] for one in found.values())
        cost = f"{means['cpu_seconds']:.0f} | {fmean(ratios):.1f}" if ratios else f"{means['cpu_seconds']:.0f} | "
        seeds = ", ".join(map(str, sorted(found)))
        losses = f"{means['test_loss']:.3f} | {means['val_loss']:.3f}"
        lines.append(f"| {base} | {arm} | {seeds} | {cost} | {accuracy:.3f} | {losses} |")
    return "\n".join(lines)


def behind(cells: Cells, arm: str) -> str:
    """Return, for each set and seed, how far an arm is ahead of each other one, with the error of their difference."""
    lines = []
    for key, ours in cells.items():
        base, _, name = key.rpartition(", ")
        if name != arm or "failed" in ours:
            continue
        for other, theirs in cells.items():
            if other.rpartition(", ")[0] != base or other == key or "failed" in theirs:
                continue
            pairs = zip(ours["right"], theirs["right"], strict=True)
            differences = [int(mine) - int(other_s) for mine, other_s in pairs]
            error = stdev(differences) / len(differences) ** 0.5
            lines.append(f"{base}: {arm} is {fmean(differences):+.3f} ± {error:.3f} over {other.rpartition(', ')[2]}")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--cell", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=DEFAULT_ARMS)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--settings", nargs="+", default=[], metavar="NAME=VALUE", help="further ones of train, search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    for name, value in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def known() -> Cells:
    """Return the cells that were run; read anew each time, because another process may run others."""
    cells: Cells = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else {}
    return cells


def main() -> None:
    given = arguments()
    if given.table:
        print(table(known()), behind(known(), "search-rivals"), sep="\n\n")
        return
    if given.cell:
        settings = {name: number(value) for name, _, value in (text.partition("=") for text in given.settings)}
        numbers = {name: getattr(given, name) for name in NUMBERS}
        with tempfile.TemporaryDirectory() as place:
            common = {"folder": given.folders[0], "place": Path(place), "seed": given.seeds[0], "settings": settings}
            case = Case(**common, backbone=given.backbone, weights=given.weights, **numbers)
            print("\n" + json.dumps(cell(given.cell, case)))
        return
    for folder in given.folders:
        with tempfile.TemporaryDirectory(dir=folder.resolve().parent) as place:
            run_all(folder.name, subset(folder, given.images, Path(place)), given)


def number(text: str) -> str | float:
    """Return a number where the text is one."""
    try:
        return float(text)
    except ValueError:
        return text


def run_all(name: str, data: Path, given: argparse.Namespace) -> None:
    base = [name, f"{given.images or 'all'} images", f"{given.side} px", given.backbone]
    base += ["from weights" if given.weights else "from scratch", f"{given.epochs} epochs", f"{given.trials} trials"]
    for seed in given.seeds:
        for arm in given.arms:
            key = ", ".join([*base, *given.settings, f"seed {seed}", arm])
            if "failed" in known().get(key, {"failed": ""}):
                found = in_process(arm, data, seed, given)
                record.write("rivals", cells={**known(), key: found})
                print(key, {name: value for name, value in found.items() if name != "right"}, flush=True)


if __name__ == "__main__":
    main()
