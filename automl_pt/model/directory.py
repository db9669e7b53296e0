"""The model directory on disk: `weights-HASH.safetensors`, `model.json`, and a README.md for its reader.

`model.json` names the weights file with its SHA-256, has a checksum of itself, and is the commit record: it is
replaced after its weights are durable, and the earlier weights are removed after that. So a reader, or a process that
starts after a kill or a power cut, finds the old model or the new one, never a mixture. Nothing in the directory is
code; everything is checked before it is parsed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from automl_pt.core.errors import InvalidModelDirectoryError
from automl_pt.core.files import atomic_write, is_there, not_found, output_error, remove_stale, to_json
from automl_pt.core.json_reader import JsonError, parse_json
from automl_pt.core.missing_model import why_no_model
from automl_pt.core.text import few, printable
from automl_pt.model.info import TEMPERATURE, UNSURE, ModelInfo

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
INFO = "model.json"
MAX_INFO_BYTES = 64 * 1024 * 1024
#: many times the need of a hundred thousand classes and ten thousand epochs; a tenth of what would fill a gigabyte
MAX_VALUES = 1_000_000
#: formats of other programs' models, which are never opened here
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".bin", ".pt2", ".npz", ".distcp", ".tar")
_WEIGHTS = re.compile(r"weights-[0-9a-f]{12}\.safetensors")
_REMEDY = (
    "download or copy the whole directory again, or train again; `automl-pt train` and `search` write such directories"
)


@dataclass(frozen=True)
class WeightsFile:
    """The weights file that a model.json names; `size` in bytes."""

    file: str
    sha256: str
    size: int


def save_model(directory: Path, state: Mapping[str, Tensor], info: ModelInfo) -> None:
    """Save `state` (tensors by name, on any device) with `info` as the model in `directory`, durably.

    This writes and syncs the weights once and the JSON once. Raises OutputError if there is no space or no
    permission; the earlier model is then unchanged.
    """
    from safetensors.torch import save

    content = save(_plain_tensors(state))
    digest = hashlib.sha256(content).hexdigest()
    _commit(Path(directory), content, info, WeightsFile(f"weights-{digest[:12]}.safetensors", digest, len(content)))


def publish(source: Path, target: Path) -> None:
    """Copy the model in `source` to `target`, durably: a reader of `target` sees the old or the new one.

    Raises InvalidModelDirectoryError if `source` is not intact, OutputError if `target` cannot be written.
    """
    info, weights, content = read_model(Path(source))
    _commit(Path(target), content, info, weights)


def find_model(path: str | Path) -> Path:
    """Return the model directory that `path` is or contains: a model or run directory, a study, or a study's name."""
    path = Path(path)
    named = Path("studies") / path
    candidates = [path, path / "model", *([named / "model"] if not is_there(path) and path.name == str(path) else [])]
    return next((candidate for candidate in candidates if os.path.isfile(candidate / INFO)), path)


def require_model(path: str | Path) -> Path:
    """Return what `find_model` does.

    Raises InvalidModelDirectoryError for the folder of a run or search that ended without a model, with the reason.
    """
    path, directory = Path(path), find_model(path)
    if is_there(directory / INFO):
        return directory
    named = [path] if is_there(path) else [path, Path("studies") / path]
    for candidate in named:
        if (absence := why_no_model(candidate)) is not None:
            given = printable(candidate)
            raise InvalidModelDirectoryError(f"no model: {absence.what}", given=given, remedy=absence.remedy)
    return directory


def read_model(directory: Path) -> tuple[ModelInfo, WeightsFile, bytes]:
    """Return the directory's information, and its weights as bytes, checked by size and SHA-256; nothing in it is run.

    It is read again if a run replaces it meanwhile. Raises InvalidModelDirectoryError for anything that is not a
    complete model directory.
    """
    info, weights = read_info(directory)
    while True:
        try:
            return info, weights, _read_weights(directory, weights)
        except InvalidModelDirectoryError:
            info, newer = read_info(directory)
            if newer == weights:
                raise
            weights = newer


def read_info(directory: Path) -> tuple[ModelInfo, WeightsFile]:
    """Return the content of model.json, checked; raise InvalidModelDirectoryError."""
    text = read_file(directory, INFO, MAX_INFO_BYTES)
    try:
        record = parse_json(text, max_values=MAX_VALUES)
    except JsonError as error:
        refuse(directory, f"{INFO} is not valid JSON: {error}")
    if not isinstance(record, dict):
        refuse(directory, f"{INFO} is not an object")
    if record.get("format") != FORMAT:
        refuse(
            directory,
            f"{INFO} has format {record.get('format')!r}; this version reads format {FORMAT}",
            remedy="update automl-pt, or give a directory that automl-pt wrote",
        )
    checksum = record.pop("checksum", None)
    if checksum != _checksum(record):
        refuse(directory, f"{INFO} was changed after it was written: its checksum does not match")
    try:
        return ModelInfo.from_dict(record), _weights_file(record.get("weights"), directory)
    except ValueError as error:
        refuse(directory, f"{INFO}: {error}")


def refuse(directory: Path, what: str, *, remedy: str = _REMEDY) -> NoReturn:
    """Raise InvalidModelDirectoryError: `what` is wrong with `directory`."""
    raise InvalidModelDirectoryError(
        "the model directory is incomplete, damaged or not one of automl-pt",
        given=f"{printable(directory)}: {printable(what)}",
        remedy=remedy,
    )


def _commit(directory: Path, content: bytes, info: ModelInfo, weights: WeightsFile) -> None:
    from automl_pt.model.card import card

    try:
        directory.mkdir(parents=True, exist_ok=True)
        remove_stale(directory)
    except OSError as error:
        raise output_error(error, directory) from error
    named = {"file": weights.file, "sha256": weights.sha256, "size": weights.size}
    record = {"format": FORMAT, **info.to_dict(), "weights": named}
    atomic_write(directory / weights.file, content)
    atomic_write(directory / INFO, to_json({**record, "checksum": _checksum(record)}, indent=2) + "\n")
    _remove_other_weights(directory, weights.file)
    atomic_write(directory / "README.md", card(info))


def _remove_other_weights(directory: Path, kept: str) -> None:
    """Remove the earlier model's weights, and the temperature and the rule that were fitted for them."""
    try:
        for path in sorted(directory.glob("weights-*.safetensors")):
            if path.name != kept and _WEIGHTS.fullmatch(path.name):
                for fitted in (TEMPERATURE, UNSURE):
                    (directory / fitted).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, directory) from error


def _plain_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, contiguous and without shared memory, because the file format requires this."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        own = tensor.detach().cpu().contiguous()
        if own.numel() and own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        plain[name] = own
    return plain


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(record).encode()).hexdigest()


def _weights_file(value: Any, directory: Path) -> WeightsFile:
    expected = {"file": str, "sha256": str, "size": int}
    if not isinstance(value, dict) or any(type(value.get(key)) is not kind for key, kind in expected.items()):
        refuse(directory, f"{INFO} does not state the file of the weights")
    weights = WeightsFile(value["file"], value["sha256"], value["size"])
    if not _WEIGHTS.fullmatch(weights.file):
        refuse(directory, f"the weights file is called {weights.file!r}, not weights-HASH.safetensors")
    return weights


def _read_weights(directory: Path, weights: WeightsFile) -> bytes:
    content = read_file(directory, weights.file, weights.size)
    if len(content) != weights.size:
        refuse(directory, f"{weights.file} has {len(content):,} bytes, not the {weights.size:,} that were written")
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        refuse(directory, f"{weights.file} is damaged: its SHA-256 does not match")
    return content


def read_file(directory: Path, name: str, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; links, pipes and devices are refused unread."""
    _require_directory(directory)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    path = directory / name
    if path.is_symlink():
        refuse(directory, f"{name} is a link; links are not followed")
    try:
        with open(os.open(path, flags), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                refuse(directory, f"{name} is not a regular file")
            if status.st_size > limit:
                refuse(directory, f"{name} has {status.st_size:,} bytes; {limit:,} are allowed")
            return stream.read(status.st_size + 1)  # the limit for weights is their size in model.json
    except FileNotFoundError:
        _refuse_missing(directory, name)
    except OSError as error:
        refuse(directory, f"{name}: {error.strerror}")


def _require_directory(directory: Path) -> None:
    if directory.is_dir():
        return
    if directory.suffix.lower() in PICKLES:
        _refuse_pickles(directory, [directory.name])
    remedy = "give a directory that holds a model.json"
    if directory.exists():
        refuse(directory, "it is a file, not a directory", remedy=remedy)
    given = f"{printable(directory)}: there is no such directory"
    studies = [folder.parent.name for folder in Path("studies").glob("*/model")]
    raise InvalidModelDirectoryError(not_found(directory, studies), given=given, remedy=remedy)


def _refuse_missing(directory: Path, name: str) -> NoReturn:
    pickles = sorted(entry.name for entry in directory.iterdir() if entry.suffix.lower() in PICKLES)
    if name == INFO and pickles:
        _refuse_pickles(directory, pickles)
    refuse(directory, f"it has no {name}")


def _refuse_pickles(path: Path, names: list[str]) -> NoReturn:
    raise InvalidModelDirectoryError(
        "the model is a pickle or an archive, which is never opened, because opening it can run its author's code",
        given=f"{printable(path)}: {few(names)}",
        remedy="if you trust it, save its weights with `safetensors.torch.save_file(model.state_dict(), FILE)`, and "
        "start from them with `automl-pt train --weights FILE`",
    )
