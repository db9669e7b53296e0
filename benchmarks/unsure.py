"""How well a model's rule for unsure answers does: its coverage on test images, and images unlike the known ones.

python benchmarks/unsure.py MODEL DATA OTHER...

MODEL was trained on DATA, which has a test split; each OTHER is a folder of images of something else. Of up to 1,000
images of each, on the CPU: the share of test images whose true class is among the candidates, sure answers and how many
of them are right, for three largest errors; and for several scores of unlikeness the AUROC of an OTHER against the test
images, and the share of both above the limit (a quantile of the validation images).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray

from automl_pt.layouts.listing import list_images
from automl_pt.model.labelled import Scored, manifest_of, open_labelled, run_model
from automl_pt.model.load import Model, find_model, load_model
from automl_pt.model.novelty import _distances, unit
from automl_pt.model.predict import outcomes
from automl_pt.model.softmax import softmax
from automl_pt.model.unsure import measure
from automl_pt.model.unsure_file import fit_rule
from automl_pt.plugins.manager import Plugins, load_plugins

MOST = 1000
Features = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("others", type=Path, nargs="+")
    given, plugins = parser.parse_args(), load_plugins()
    model = replace(load_model(given.model, device="cpu", calibrated=False), rule=None)
    splits = {name: split(model, given.model, given.data, plugins, name) for name in ("train", "val", "test")}
    found: dict[str, Any] = {
        "images": {name: len(one.labels) for name, one in splits.items()},
        "coverage": {str(error): coverage(given.model, splits, error) for error in (0.02, 0.05, 0.1)},
        "unlike": {other.name: unlike(splits, *others(model, other)) for other in given.others},
    }
    name = f"unsure_{Path(given.data).name}"
    print(record.write(name, network=model.info.backbone, **found))
    for other, scores in found["unlike"].items():
        for score, figures in scores.items():
            print(f"{other:24} {score:22} " + "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    for error, figures in found["coverage"].items():
        print(error, figures)


def split(model: Model, path: Path, data: str, plugins: Plugins, name: Any) -> Scored:
    found = open_labelled(data, model.classes, plugins, split=name, manifest=manifest_of(find_model(path)))
    chosen = spread(len(found.labels))
    taken = tuple(found.taken[index] for index in chosen)
    names = tuple(found.names[index] for index in chosen)
    return run_model(model, replace(found, taken=taken, labels=found.labels[chosen], names=names), features=True)


def others(model: Model, folder: Path) -> tuple[Features, Features]:
    paths = list_images([folder]).paths
    rows = [row for _, row in outcomes(model, [paths[index] for index in spread(len(paths))], features=True)]
    return np.stack([row.logits for row in rows]), np.stack([row.features for row in rows])


def spread(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(np.int64))


def coverage(path: Path, splits: dict[str, Scored], error: float) -> dict[str, Any] | None:
    test = splits["test"]
    rule = fit_rule(find_model(path), splits["val"], max_error=error, temperature=1.0, data="")
    if rule is None:
        return None
    return measure(rule.answers(test.logits, test.features), test.logits, test.labels, "test").to_dict()


def unlike(splits: dict[str, Scored], logits: Features, features: Features) -> dict[str, dict[str, float]]:
    val, test = splits["val"], splits["test"]
    found = {
        "1 - highest probability": figures(*(1 - softmax(one).max(1) for one in (val.logits, test.logits, logits)))
    }
    vectors = [unit(one) for one in (val.features, test.features, features)]
    for neighbour in (1, 3, 5, 10):
        # of a validation image the nearest is the image itself
        own = _distances(vectors[0], vectors[0], neighbour + 1)
        rest = [_distances(one, vectors[0], neighbour) for one in vectors[1:]]
        found[f"val images, k = {neighbour}"] = figures(own, *rest)
    for neighbour in (1, 10):
        scores = [_distances(one, unit(splits["train"].features), neighbour) for one in vectors]
        found[f"training images, k = {neighbour}"] = figures(*scores)
    found["Mahalanobis"] = figures(*mahalanobis(splits["train"], (val.features, test.features, features)))
    return found


def mahalanobis(train: Scored, groups: tuple[Features, ...]) -> list[NDArray[np.float64]]:
    """Lee et al., NeurIPS 2018, on the last features, with the covariance shrunk as Ledoit and Wolf say."""
    from sklearn.covariance import LedoitWolf

    means = np.stack([train.features[train.labels == label].mean(0) for label in np.unique(train.labels)])
    places = np.unique(train.labels, return_inverse=True)[1]
    shape = LedoitWolf(assume_centered=True).fit(train.features - means[places]).precision_
    return [np.min([((one - mean) @ shape * (one - mean)).sum(1) for mean in means], axis=0) for one in groups]


def figures(val: NDArray[Any], test: NDArray[Any], other: NDArray[Any]) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    ordered = np.sort(val)
    found = {"auroc": float(roc_auc_score([0] * len(test) + [1] * len(other), np.concatenate([test, other])))}
    for share in (0.01, 0.05):
        limit = ordered[min(int(np.ceil((len(val) + 1) * (1 - share))), len(val)) - 1]
        found[f"test above {1 - share:g}"] = float((test > limit).mean())
        found[f"other above {1 - share:g}"] = float((other > limit).mean())
    return found


if __name__ == "__main__":
    main()
