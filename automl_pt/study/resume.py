"""What a study was made with, and whether it can go on with what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automl_pt.config import SearchConfig
from automl_pt.errors import StudyError

#: settings that say where, with what or how long a study is computed, not what is computed
FREE = frozenset(
    ["dataset", "root", "download", "device", "threads", "plugins", "trackers", "cache_dir", "checkpoint_minutes"]
    + ["trials", "timeout", "name", "storage", "workers", "trial_timeout", "keep_models", "stop_when_flat", "pruner"]
    + ["lr", "batch_sizes", "backbones"]
)


def describe(config: SearchConfig, fingerprint: str, version: str) -> dict[str, Any]:
    """Return what is kept of a study's making, as plain values."""
    return {
        "version": version,
        "fingerprint": fingerprint,
        "settings": config.model_dump(mode="json", exclude=set(FREE)),
        "backbones": list(config.backbones),
        "lr": list(config.lr),
    }


def require_comparable(found: Mapping[str, Any], wanted: Mapping[str, Any], *, where: str) -> None:
    """Raise StudyError, naming each difference, where results would not be comparable with those that are there."""
    differences = [
        f"{key} was {found['settings'].get(key)!r} and is {wanted['settings'].get(key)!r}"
        for key in sorted({*found["settings"], *wanted["settings"]})
        if found["settings"].get(key) != wanted["settings"].get(key)
    ]
    if found["fingerprint"] != wanted["fingerprint"]:
        differences.insert(0, "the training or validation images, or their split, are others")
    if found["backbones"] != wanted["backbones"]:
        differences.append(f"backbones were {', '.join(found['backbones'])} and are {', '.join(wanted['backbones'])}")
    if wanted["lr"][0] > found["lr"][0] or wanted["lr"][1] < found["lr"][1]:
        differences.append(
            "lr was {:g}:{:g} and is {:g}:{:g}: a range may grow, not shrink".format(*found["lr"], *wanted["lr"])
        )
    if differences:
        raise StudyError(
            "a study goes on with what it was made with; only trials, timeout and ranges may grow",
            given=f"{where}: {'; '.join(differences)}",
            remedy="give the same settings again, or another --name to begin a new study",
        )
