"""What a run directory tells: what made the run, how far it came, how it ended; and which calls it is for."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from automl_pt.config import C, TrainConfig, as_made, make
from automl_pt.core.errors import CheckpointError, OutputError
from automl_pt.core.files import read_json, to_json, write_json
from automl_pt.core.json_reader import parse_json, read_json_lines
from automl_pt.core.text import printable, without_password
from automl_pt.data.prepare import Data
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.provenance import how_to_get, missing_plugins, recorded, told, used_plugins
from automl_pt.training.checkpoint import require_same
from automl_pt.training.device import NumberFormat, describe
from automl_pt.training.early_stopping import Reason
from automl_pt.training.result import EpochResult

#: settings that say where and with what a run is computed, not what it computes; data are compared by fingerprint
PLACE = (
    *("dataset", "device", "threads", "plugins", "trackers", "root", "download", "checkpoint_minutes", "cache_dir"),
    *("cuda_graph", "compile"),
)
#: settings that are never taken from a file that a run, model or study brings along
USERS_OWN = ("plugins", "trackers", "cache_dir", "download")
#: reasons after which there is nothing left to do
ENDED = ("completed", "patience", "diverged")
#: what a call makes in a run directory before the run has begun
PRELIMINARY = ("manifest.json", ".lock", "checkpoints")


def default_output(config: TrainConfig) -> Path:
    """Return the run directory used where none is named."""
    path = Path(config.dataset)
    path = path if path.stem else path.resolve()  # "." has no stem
    # the end of a folder's name is no suffix: photos.v1 and photos.v2 are two data sets
    dataset = path.name if path.is_dir() else path.stem
    return Path("runs") / f"{dataset}-{config.backbone.replace('/', '-')}"


def require_apart(config: TrainConfig, output: Path, plugins: Plugins) -> None:
    """Raise OutputError when the run directory lies in the folder of images: the next look would find it there."""
    folder = Path(config.dataset)
    if config.dataset in plugins.datasets() or not folder.is_dir():
        return
    if output.resolve().is_relative_to(folder.resolve()):
        raise OutputError(
            "results are written outside the folder of images",
            given=f"{printable(output)} lies in {printable(folder)}",
            remedy="name another folder with --output, or start the command elsewhere",
        )


class Cleanup:
    """Where a call is refused before its run or study has begun, leave no more on disk than there was before it.

    What is there is noted when this is made; the blocks in which the call may be refused are entered with it. `names`
    are what it makes in `output`, among them `mark`, which says that it has begun; `beside` are its files elsewhere.
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
                with suppress(OSError):  # never made, or somebody has put something into it meanwhile
                    folder.rmdir()


def history(output: Path) -> list[EpochResult]:
    """Return the epochs that a run directory's history.jsonl tells of; none when there is no run.

    Raises CheckpointError for a damaged file.
    """
    path = output / "history.jsonl"
    if not path.exists():
        return []
    try:
        return [EpochResult.from_dict(values) for values in read_json_lines(path)]
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise CheckpointError(
            "a run's epochs are read as they were written",
            given=printable(f"{path}: {type(error).__name__}: {error}")[:300],
            remedy="put the file back from a copy, or train again",
        ) from error


def finish(output: Path, reason: Reason, *, error: str | None = None) -> None:
    """Record in `output` why the run ended; a run that ended by itself keeps its own reason."""
    path = output / "run.json"
    record = _read_record(path)
    if record.get("reason") in ENDED:  # kept: whoever paused a run that had ended by itself did not change why
        return
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path, {**record, "reason": reason, "error": error, "ended": ended})


def earlier(output: Path, config: TrainConfig, data: Data, *, processes: int = 1) -> dict[str, Any]:
    """Return the record of the run found in `output`; empty where there is none.

    Raises CheckpointError when that run is not this one: other settings, other images, another number of processes.
    """
    path = output / "run.json"
    if not path.exists():
        return {}
    found = _read_record(path)
    settings = config.model_dump(mode="json")
    keys = {key for key in settings if key not in PLACE}
    wanted = {key: settings[key] for key in keys} | {"data": data.manifest.fingerprint(), "processes": processes}
    # a run made before a setting existed was made with its default
    kept = as_made(found["config"])
    if wanted["pretrained"] is None:  # nobody says: as it was begun
        wanted["pretrained"] = kept.get("pretrained")
    before = {key: kept.get(key, _default(key)) for key in keys} | {"data": found["data"]["fingerprint"]}
    require_same({**before, "processes": found.get("processes", 1)}, wanted, output)
    return found


def as_begun(config: TrainConfig, before: Mapping[str, Any], *, pretrained: bool) -> TrainConfig:
    """Return the settings with what nobody said settled: as the run was begun, or for a new one `pretrained`."""
    if config.pretrained is None:
        pretrained = bool(before["config"].get("pretrained")) if before else pretrained
    return config.model_copy(update={"pretrained": pretrained if config.pretrained is None else config.pretrained})


def _default(setting: str) -> Any:
    field = TrainConfig.model_fields.get(setting)
    return None if field is None else parse_json(to_json(field.default))


def require_plugins(output: Path, plugins: Plugins) -> None:
    """Raise CheckpointError, with the line that installs them, where the run in `output` used plugins not here."""
    path = output / "run.json"
    if missing := missing_plugins(recorded(_read_record(path)) if path.exists() else [], plugins):
        raise CheckpointError(
            "a run goes on with the plugins it was begun with",
            given=f"{printable(output)}: without {told(missing)}",
            remedy=how_to_get(missing),
        )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path)
        _ = found["config"].keys(), found["data"]["fingerprint"], recorded(found)
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise CheckpointError(
            "a run goes on from its own record",
            given=f"{path}: damaged, or not written by automl-pt",
            remedy="name another --output, or delete the folder to begin anew",
        ) from error
    return found


def recorded_config(kind: type[C], settings: Mapping[str, Any], *, source: Path, download: bool = False) -> C:
    """Return the settings that a file of a run, model or study tells, which anybody may have sent.

    Code to import, places to write to, trackers to report to and leave to download are the user's alone to name: what
    the file says of them is left out. With `download` that holds for `root`, too, into which it fetches. Raises
    ConfigError for settings that no run has.
    """
    left_out = (*USERS_OWN, "root") if download else USERS_OWN
    kept = {name: value for name, value in settings.items() if name not in left_out}
    return make(kind, {**kept, "download": download}, source=str(source))


def changes(before: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Say what a run is gone on with that it was not begun with, and that may change its last bits."""
    if not before:
        return []
    names = ("device", "precision", "threads", "versions")
    changed = [
        f"{name} was {before.get(name)} and is {record[name]}" for name in names if before.get(name) != record[name]
    ]
    return [f"not bit for bit as an unbroken run: {change}" for change in changed]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
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
    """Return what run.json says of a run that begins now."""
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
        "plugins": used_plugins(plugins, [config.backbone], config.dataset),
        # a search in this process, and its refit, were told the storage's URL
        "command": shlex.join(map(without_password, sys.argv)),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": None,
        "error": None,
        "processes": processes,
    }
