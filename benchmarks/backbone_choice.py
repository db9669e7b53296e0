"""Whether the linear probe chooses the right backbone: its loss beside the test accuracy of one default training each.

    python benchmarks/backbone_choice.py FOLDER [--backbones lite0 lite1 lite2] [--images 600] [--size 64] [--seeds 1]

FOLDER holds {train,val,test}/CLASS/*. Each backbone, with its own pretrained weights, runs the arms `first-model` and
`train` of transfer.py, whose cells results/backbone_choice.json keeps; a cell that is there is not run again. A choice
is good if its test accuracy is behind the highest by at most one standard error of an accuracy on so many test images.
Two choices are judged: the lowest loss of a probe, and what a search does, which fine-tunes the second best as well if
its probe's loss is close, and keeps the one with the lower validation loss.
"""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import record
import transfer

from automl_pt.study.linear_probes import CLOSE

NAME = "backbone_choice"
KEY = re.compile(r"(?P<case>.+), (?P<backbone>[^ ,]+), (?P<arm>first-model|train), seed (?P<seed>\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbones", nargs="+", default=["lite0", "lite1", "lite2"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    for name, default in (("size", 64), ("epochs", 5), ("images", 600)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    more = {"weights": None, "results": NAME, "arms": ["first-model", "train"]}
    with tempfile.TemporaryDirectory(dir=given.folder.resolve().parent) as place:
        data = transfer.subset(given.folder, given.images, Path(place))
        for backbone in given.backbones:
            transfer.run_all(argparse.Namespace(**{**vars(given), **more, "backbone": backbone}), data)
    images = {given.folder.name: sum(1 for _ in (given.folder / "test").glob("*/*"))}
    found = judged(transfer.known(NAME), {**tests(), **images})
    record.write(NAME, cells=transfer.known(NAME), choices=found, test_images={**tests(), **images})
    for case, choice in found.items():
        print(case, choice)


def tests() -> dict[str, int]:
    """Return the number of test images of each folder that was measured before."""
    found: dict[str, int] = transfer.read(NAME).get("test_images", {})
    return found


def judged(cells: dict[str, Any], images: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Return for each case the best backbone, and of both choices how far they are behind it."""
    by_case: dict[str, dict[str, dict[str, Any]]] = {}
    for key, cell in cells.items():
        if (parts := KEY.fullmatch(key)) is not None:
            case = by_case.setdefault(f"{parts['case']}, seed {parts['seed']}", {})
            case.setdefault(parts["backbone"], {})[parts["arm"]] = cell
    choices = {}
    for case, backbones in by_case.items():
        loss = {name: arms["first-model"]["val_loss"] for name, arms in backbones.items() if len(arms) == 2}
        accuracy = {name: backbones[name]["train"]["test_accuracy"] for name in loss}
        if len(loss) < 2:
            continue
        ranking = sorted(loss, key=lambda name: loss[name])
        tuned = [name for name in ranking[:2] if loss[name] <= CLOSE * loss[ranking[0]]]
        kept = min(tuned, key=lambda name: backbones[name]["train"]["val_loss"])
        best = max(accuracy, key=lambda name: accuracy[name])
        error = math.sqrt(accuracy[best] * (1 - accuracy[best]) / images[case.partition(",")[0]])
        choices[case] = {
            "best": best,
            "standard_error": round(error, 4),
            "by_probe": _behind(ranking[0], accuracy, error),
            "by_search": _behind(kept, accuracy, error),
            "probe_loss": loss,
            "test_accuracy": accuracy,
        }
    return choices


def _behind(chosen: str, accuracy: dict[str, float], error: float) -> dict[str, Any]:
    behind = max(accuracy.values()) - accuracy[chosen]
    return {"chosen": chosen, "behind": round(behind, 4), "good": behind <= error}


if __name__ == "__main__":
    main()
