"""Reads and writes a run directory: what created the run, its progress, how it ended; and checks who may resume it."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from automl_pt.config import PLACE, C, TrainConfig, as_made, make
from automl_pt.core.errors import CheckpointError, OutputError
from automl_pt.core.files import read_json, to_json, write_json
from automl_pt.core.json_reader import parse_json, read_json_lines
from automl_pt.core.text import printable, without_password
from automl_pt.data.prepare import Data
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.provenance import how_to_get, missing_plugins, recorded, told, used_plugins
from automl_pt.training.checkpoint import RECORD as CHECKPOINT
from automl_pt.training.checkpoint import require_same
from automl_pt.training.device import NumberFormat, describe
from automl_pt.training.early_stopping import Reason
from automl_pt.training.result import EpochResult

#: settings that are never read from a file of a run, model or study
USERS_OWN = ("plugins", "trackers", "cache_dir", "download")
#: reasons after which a run is complete
ENDED = ("completed", "patience", "diverged")
#: what a call creates in a run directory before the run starts
PRELIMINARY = ("manifest.json", ".lock", "checkpoints")


def default_output(config: TrainConfig) -> Path:
    """Return the default run directory."""
    path = Path(config.dataset)
    path = path if path.stem else path.resolve()  # "." has no stem
    # the end of a folder's name is not a suffix: photos.v1 and photos.v2 are two datasets
    dataset = path.name if path.is_dir() else path.stem
    return Path("runs") / f"{dataset}-{config.backbone.replace('/', '-')}"


def require_apart(config: TrainConfig, output: Path, plugins: Plugins) -> None:
    """Raise OutputError if the run directory is in the folder of images, where its files would be listed."""
    folder = Path(config.dataset)
    if config.dataset in plugins.datasets() or not folder.is_dir():
        return
    if output.resolve().is_relative_to(folder.resolve()):
        raise OutputError(
            "the run directory is in the folder of images",
            given=f"{printable(output)} is in {printable(folder)}",
            remedy="choose another folder with --output, or start the command elsewhere",
        )


class Cleanup:
    """Removes what a call created if it is refused before its run or study has started.

    What exists is noted at creation; the blocks in which the call may be refused are entered with it. `names` are what
    it creates in `output`, including `mark`, which states that it has started; `beside` are its files elsewhere.
    """

    def __init__(
        self,
        output: Path,
        *,
        mark: str = "run.json",
        names: Sequence[str] = PRELIMINARY,
        beside: Sequence[Path] = (),
    ) -> None:
        self.mark = output / mark
        paths = [*(output / name for name in names), *beside]
        parents = [folder for path in (output / mark, *beside) for folder in path.parents]
        self._own = [path for path in paths if not path.exists()]
        self._folders = [folder for folder in dict.fromkeys(parents) if not folder.exists()]

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None and not self.mark.exists():
            for path in self._own:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            for folder in self._folders:
                with suppress(OSError):  # never created, or another program has added something to it
                    folder.rmdir()


def history(output: Path) -> list[EpochResult]:
    """Return the epochs in a run directory's history.jsonl; empty if there is no run.

    Raises CheckpointError for a damaged file.
    """
    path = output / "history.jsonl"
    if not path.exists():
        return []
    try:
        return [EpochResult.from_dict(values) for values in read_json_lines(path)]
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise CheckpointError(
            "the run's history is damaged",
            given=printable(f"{path}: {type(error).__name__}: {error}")[:300],
            remedy="restore the file from a copy, or train again",
        ) from error


def finish(output: Path, reason: Reason, *, error: str | None = None, notes: Sequence[str] = ()) -> None:
    """Record in `output` why the run ended, and each of the epochs' `notes` once.

    A run that ended by itself keeps its own reason.
    """
    path = output / "run.json"
    record = _read_record(path)
    if record.get("reason") in ENDED:  # pausing a run that had ended by itself does not change its reason
        return
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    said = list(dict.fromkeys(notes))
    write_json(path, {**record, "reason": reason, "error": error, "ended": ended, "notes": said})


def earlier(output: Path, config: TrainConfig, data: Data, *, processes: int = 1) -> dict[str, Any]:
    """Return the record of the run in `output`; empty if there is none.

    Raises CheckpointError if that run has other settings, other images, or another number of processes, or if its
    record was removed.
    """
    path = output / "run.json"
    if not path.exists():
        require_no_rest(output)
        return {}
    found = _read_record(path)
    settings = config.model_dump(mode="json")
    keys = {key for key in settings if key not in PLACE}
    wanted = {key: settings[key] for key in keys} | {"data": data.manifest.fingerprint(), "processes": processes}
    # a setting newer than the run has its default there
    kept = as_made(found["config"])
    if wanted["pretrained"] is None:  # not given: as the run was started
        wanted["pretrained"] = kept.get("pretrained")
    before = {key: kept.get(key, _default(key)) for key in keys} | {"data": found["data"]["fingerprint"]}
    require_same({**before, "processes": found.get("processes", 1)}, wanted, output)
    return found


def require_no_rest(output: Path) -> None:
    """Raise CheckpointError if a folder without `run.json` has a run's checkpoint or history.

    Nothing says with which settings and images they were made, so a run would continue or replace another one.
    """
    if (output / "run.json").exists():
        return
    left = [name for name in (f"checkpoints/{CHECKPOINT}", "history.jsonl") if (output / name).exists()]
    if left:
        raise CheckpointError(
            "the run's record run.json is missing, so nothing says whether its checkpoint fits these settings",
            given=f"{printable(output)} has {' and '.join(left)}, but no run.json",
            remedy="restore run.json from a copy, choose another --output, or delete the folder to start again",
        )


def as_begun(config: TrainConfig, before: Mapping[str, Any], *, pretrained: bool) -> TrainConfig:
    """Return the settings with open ones filled in: as the run was started, or for a new one from `pretrained`."""
    if config.pretrained is None:
        pretrained = bool(before["config"].get("pretrained")) if before else pretrained
    return config.model_copy(update={"pretrained": pretrained if config.pretrained is None else config.pretrained})


def _default(setting: str) -> Any:
    field = TrainConfig.model_fields.get(setting)
    return None if field is None else parse_json(to_json(field.default))


def require_plugins(output: Path, plugins: Plugins) -> None:
    """Raise CheckpointError, with the command that installs them, if plugins of the run in `output` are missing."""
    path = output / "run.json"
    if missing := missing_plugins(recorded(_read_record(path)) if path.exists() else [], plugins):
        raise CheckpointError(
            "a plugin of this run is not loaded",
            given=f"{printable(output)}: without {told(missing)}",
            remedy=how_to_get(missing),
        )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path)
        _ = found["config"].keys(), found["data"]["fingerprint"], recorded(found)
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise CheckpointError(
            "the run's record is damaged, or not one of automl-pt",
            given=f"{path}",
            remedy="choose another --output, or delete the folder to start again",
        ) from error
    return found


def recorded_config(kind: type[C], settings: Mapping[str, Any], *, source: Path, download: bool = False) -> C:
    """Return the settings in a file of a run, model or study, which is untrusted.

    Only the user may name code to import, places to write to, trackers to report to, and permission to download, so the
    file's values of these are ignored. With `download` this includes `root`, which is downloaded to. Raises
    ConfigError for settings that no run has.
    """
    left_out = (*USERS_OWN, "root") if download else USERS_OWN
    kept = {name: value for name, value in settings.items() if name not in left_out}
    return make(kind, {**kept, "download": download}, source=str(source))


def changes(before: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Return the differences from the start of a run that may change its last bits when it is resumed."""
    if not before:
        return []
    names = ("device", "precision", "threads", "versions")
    changed = [
        f"{name} was {before.get(name)} and is {record[name]}" for name in names if before.get(name) != record[name]
    ]
    return [f"not bit for bit like an uninterrupted run: {change}" for change in changed]


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect a result."""
    packages = ("automl-pt", "torch", "torchvision", "timm")
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}


def new_record(
    config: TrainConfig,
    data: Data,
    plugins: Plugins,
    device: torch.device,
    precision: NumberFormat,
    *,
    processes: int = 1,
) -> dict[str, Any]:
    """Return the run.json of a run that starts now."""
    return {
        "format": 1,
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "device": describe(device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "data": {
            "source": data.manifest.source,
            "fingerprint": data.manifest.fingerprint(),
            "counts": data.manifest.counts(),
            "left_out": len(data.manifest.left_out),
        },
        "plugins": used_plugins(plugins, config.named_values()),
        # a search in this process, and its refit, were told the storage's URL
        "command": shlex.join(map(without_password, sys.argv)),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": None,
        "error": None,
        "processes": processes,
    }
