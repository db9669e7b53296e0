"""Repeats a run directory's settings in a new folder, and compares the results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from automl_pt.config import TrainConfig, as_made
from automl_pt.core.errors import CheckpointError
from automl_pt.core.files import make_folder, read_json
from automl_pt.core.text import printable
from automl_pt.data.manifest import manifest_beside
from automl_pt.data.prepare import Data, prepare
from automl_pt.model.directory import INFO, read_info
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.plugins.provenance import recorded
from automl_pt.runs.directory import ENDED, history, recorded_config, require_plugins, versions
from automl_pt.runs.run import execute
from automl_pt.training.device import choose_device, choose_precision, describe
from automl_pt.training.result import EpochResult

#: what of an epoch must be equal, with every metric that both records hold; times and memory are not
FIGURES = ("train_loss", "val_loss", "val_accuracy", "val_top5", "ema_val_loss", "lr", "is_best", "reason")


@dataclass(frozen=True)
class RunComparison:
    """The comparison of two runs: whether weights are equal bit for bit, and each epoch's figures that differ."""

    #: None if the original has none, because it diverged at once, or a search removed them
    same_weights: bool | None
    #: such as "epoch 2: val_loss was 0.5 and is 0.6"
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Return whether all that can be compared is equal bit for bit."""
        return self.same_weights is not False and not self.differences


class Reproduction:
    """A finished run, and the means to repeat it.

    Only given or installed plugins are used, not the files that the run names; `download` allows downloading a dataset.
    Raises CheckpointError if `original` holds no finished run, and what `prepare` raises if its data are
    missing.
    """

    def __init__(self, original: Path, *, plugins: Plugins | None = None, download: bool = False) -> None:
        self.original, self.record = original, _finished(original)
        # the number of threads changes the order of sums, and so the last bits
        settings = {**as_made(self.record["config"]), "threads": self.record["threads"]}
        if self.record["precision"] == "fp32":  # which any machine computes in, whatever it would choose
            settings["precision"] = "fp32"
        self.config = recorded_config(TrainConfig, settings, source=original / "run.json", download=download)
        torch.set_num_threads(self.record["threads"])
        self.plugins = plugins or load_plugins()
        require_plugins(original, self.plugins)
        self.data: Data = prepare(self.config, self.plugins, manifest=_split(original))

    def changes(self) -> list[str]:
        """Return differences that may change the result: versions, device, number format, data, processes."""
        device = choose_device(self.config.device)
        now = {
            **versions(),
            "device": describe(device),
            "precision": choose_precision(self.config.precision, device),
            "data": self.data.manifest.fingerprint(),
            "processes": 1,
        }
        before = {
            **self.record["versions"],
            "device": self.record["device"],
            "precision": self.record["precision"],
            "data": self.record["data"]["fingerprint"],
            "processes": self.record.get("processes", 1),
        }
        changed = [f"{name} was {before.get(name)} and is {now[name]}" for name in now if before.get(name) != now[name]]
        return changed + self._not_loaded()

    def _not_loaded(self) -> list[str]:
        """Note the plugin files that the run names and the user has not given: files of a run are never executed."""
        names = self.record["config"].get("plugins") or ()
        loaded = {Path(file).name for file in self.plugins.files}
        return [
            f"the run was started with the plugin file {printable(name)}, which is not loaded; --plugin loads it, "
            "if you trust it"
            for name in names
            if isinstance(name, str) and Path(name).name not in loaded
        ]

    def run(self, output: Path) -> Iterator[EpochResult]:
        """Train again in `output`, an empty folder."""
        if (output / "run.json").exists():
            raise CheckpointError(
                "the output folder holds a run already",
                given=f"{output}",
                remedy="choose another --output",
            )
        return execute(self.config, make_folder(output), data=self.data, plugins=self.plugins)

    def compare(self, output: Path) -> RunComparison:
        """Compare the run in `output` with the original."""
        pairs = zip(history(self.original), history(output), strict=False)
        differences = [text for before, now in pairs for text in _differing(before, now)]
        counts = len(history(self.original)), len(history(output))
        if counts[0] != counts[1]:
            differences.append(f"epochs were {counts[0]} and are {counts[1]}")
        return RunComparison(self._same_weights(output), tuple(differences))

    def _same_weights(self, output: Path) -> bool | None:
        if not (self.original / INFO).exists():
            return None
        # the new run may have none, if it diverged and the original did not
        return (output / INFO).exists() and read_info(self.original)[1].sha256 == read_info(output)[1].sha256


def _finished(original: Path) -> dict[str, Any]:
    record = _read(original / "run.json")
    if record.get("reason") not in ENDED:
        raise CheckpointError(
            "this run did not end by itself, so there is nothing to compare with",
            given=f"{original}: {'it ended with ' + repr(record.get('reason')) if record else 'it holds no run.json'}",
            remedy="give a run directory of `automl-pt train`, or let that run finish first",
        )
    if record.get("linear_probe"):
        raise CheckpointError(
            "this is a linear probe, which a search fits and no run trains",
            given=printable(f"{original}: the probe of {record['config'].get('backbone')}"),
            remedy="search again under another --name; the same images and weights give the same probe",
        )
    return record


def _split(original: Path) -> Path:
    """Return the split's file of the run, because another seed would draw another split."""
    manifest = manifest_beside(original)
    if manifest is None:
        raise CheckpointError(
            "the split of this run is missing",
            given=printable(f"{original}: there is no manifest.json here, nor in the study of this trial"),
            remedy="restore the file from a copy, or train again",
        )
    return manifest


def _read(path: Path) -> dict[str, Any]:
    """Return a run's record, empty if there is none; raise CheckpointError for a damaged one."""
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = read_json(path)
        _ = record["config"].keys(), record["versions"].keys(), record["data"]["fingerprint"].lower()
        if type(record["threads"]) is not int or record["threads"] < 1:
            raise ValueError(f"threads is {record['threads']!r}")
        _ = record["device"].lower(), record["precision"].lower(), record["reason"] in ENDED
        recorded(record)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "the run's record is damaged, or not one of automl-pt",
            given=printable(f"{path}: {type(error).__name__}: {error}")[:300],
            remedy="restore the file from a copy, or train again",
        ) from error
    return record


def _differing(before: EpochResult, now: EpochResult) -> list[str]:
    were, are = before.to_dict(), now.to_dict()
    # a metric that only one of the two versions computed is no difference
    metrics = [name for name in were if name in are and name.startswith(("val_", "ema_val_")) and name not in FIGURES]
    return [
        f"epoch {before.epoch}: {name} was {were[name]} and is {are[name]}"
        for name in (*FIGURES, *metrics)
        if repr(were[name]) != repr(are[name])
    ]
