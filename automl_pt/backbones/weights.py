"""Weights from files that somebody sent: read without running code, and only taken when they fit.

safetensors files hold nothing but tensors. PyTorch's own files hold a pickle, which is read with `weights_only=True`:
an unpickler that makes tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

import re
import shlex
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError  # the name of an error alone; nothing is unpickled here
from typing import TYPE_CHECKING, Any

from automl_pt.core.errors import WeightsError
from automl_pt.core.missing_model import why_no_model
from automl_pt.core.text import printable

if TYPE_CHECKING:
    from torch import Tensor, nn

_RULE = "a file of weights must be safetensors or a plain state dict, and intact"
_REMEDY = "save it again with `safetensors.torch.save_file(model.state_dict(), FILE)` where the model came from"
#: a tar archive says so in its first header block
_TAR_MAGIC_AT, _TAR_MAGIC = 257, b"ustar"
#: the first byte of a pickle, which torch.save wrote before PyTorch 1.6
_PICKLE_MAGIC = b"\x80"
#: what a pickle wants to import, as PyTorch's refusal names it
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
#: as many misfits as one message names
_SHOWN = 5


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or plain state dict, on the CPU, by name.

    Raises WeightsError for anything else: what `read_content` refuses, and a checkpoint in which the state dict is one
    entry among others.
    """
    return _plain(read_content(path), path)


def read_content(path: Path) -> dict[Any, Any]:
    """Return what a safetensors file or a file of torch.save holds, if it is a dict: tensors, plain values, containers.

    Raises WeightsError for anything else: a missing or damaged file, a whole pickled model, TorchScript, a tar archive,
    compressed members.
    """
    require_weights(path)
    with open(path, "rb") as stream:
        start = stream.read(512)
    if start[:4] == b"PK\x03\x04":
        return _dict(_torch_zip(path), path)
    if start[8:9] == b"{":
        return _safetensors(path)
    if start[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == _TAR_MAGIC:
        raise _refused(path, "a tar archive, PyTorch's format before 2018")
    if start[:1] != _PICKLE_MAGIC:
        raise _refused(path, "neither safetensors nor written by torch.save")
    return _dict(_torch(path), path)


def require_weights(path: Path) -> None:
    """Raise WeightsError where `path` is no file."""
    if path.is_dir():
        raise _folder(path)
    if not path.is_file():
        raise WeightsError("a file of weights must exist", given=str(path), remedy="check the path given to --weights")


def _folder(path: Path) -> WeightsError:
    """Say which file of a folder holds weights, or why it holds none."""
    found = sorted(file for place in (path, path / "model") for file in place.glob("weights-*.safetensors"))
    absence = None if found else why_no_model(path)
    if found:
        remedy = f"name the file in it: --weights {shlex.quote(printable(found[-1]))}"
    else:
        remedy = "name a file of weights" if absence is None else absence.remedy
    what = f"{printable(path)}, a folder" + ("" if absence is None else f" without a model, because {absence.what}")
    return WeightsError("weights are given as a file, not as a folder", given=what, remedy=remedy)


def misfits(model: nn.Module, tensors: Mapping[str, Tensor], heads: Sequence[str]) -> list[str]:
    """Say what keeps `tensors` from being the weights of `model`; empty when they fit, `heads` left aside."""
    wanted = model.state_dict()
    found = []
    for name in sorted({*wanted, *tensors}):
        if in_modules(name, heads):
            continue
        if name not in tensors:
            # files from before PyTorch 0.4.1 do not count batches, and nothing depends on the count here
            if not name.endswith("num_batches_tracked"):
                found.append(f"{name} is missing")
        elif name not in wanted:
            found.append(f"{name} is not in the network")
        elif wanted[name].shape != tensors[name].shape:
            found.append(f"{name} is {list(tensors[name].shape)}, the network's is {list(wanted[name].shape)}")
    return found


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], heads: Sequence[str]) -> bool:
    """Copy fitting `tensors` into `model`; return whether its head is among them.

    A head of another number of classes stays as it was initialised.
    """
    wanted = model.state_dict()
    head = {name for name in wanted if in_modules(name, heads)}
    same_head = all(name in tensors and tensors[name].shape == wanted[name].shape for name in head)
    taken = {name: tensor for name, tensor in tensors.items() if name in wanted and (same_head or name not in head)}
    model.load_state_dict(taken, strict=False)
    return same_head


def has_any(model: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Say whether any of `tensors` is the model's by name."""
    return not tensors.keys().isdisjoint(model.state_dict())


def misfit_error(
    path: Path, backbone: str, found: Sequence[str], *, way: str = "", of: str | None = None
) -> WeightsError:
    """Name the tensors that do not fit, the first few in full; `way` says how the file was read, `of` whose it is."""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    read = f", read as {printable(way)}," if way else ""
    shown = "; ".join(map(printable, found[:_SHOWN]))
    theirs = f"; the model was trained as {printable(of)}: `--backbone {printable(of)}`" if of else ""
    return WeightsError(
        f"these weights do not fit {backbone}; only the head may differ",
        given=f"{printable(path)}{read} for {backbone}: {shown}{more}",
        remedy="give weights of the same network, or name the backbone they belong to" + theirs,
    )


def in_modules(name: str, modules: Sequence[str]) -> bool:
    """Return whether a tensor's name lies in one of the modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _refused(path, str(error)) from error
    return tensors


def _torch_zip(path: Path) -> Any:
    """Load a zip as torch.save writes it: stored members only, since a small compressed file can fill the memory."""
    try:
        members = zipfile.ZipFile(path).infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _refused(path, str(error)) from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise _refused(path, "a compressed archive")
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise _refused(path, "a TorchScript program")
    return _torch(path)


def _torch(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # PyTorch warns of pickles that it did not write itself: those that it cannot read are refused here anyhow
            warnings.simplefilter("ignore", UserWarning)
            # the settings of a training script, as timm's keeps them in its checkpoints: a container of plain values
            with torch.serialization.safe_globals([Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged or hostile file raises is not documented, and varies
        raise _refused(path, _why(error)) from error


def _why(error: Exception) -> str:
    """Say why torch.load refused, without its own text of a pickle: that advises to load it unsafely."""
    code = _GLOBAL.search(str(error))
    if code:
        return f"it would run {code[1]} when loaded"
    if isinstance(error, UnpicklingError):
        return "a pickle of something else than tensors by name, or a damaged one"
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def _dict(content: Any, path: Path) -> dict[Any, Any]:
    if not isinstance(content, dict) or not content:
        raise _refused(path, f"it holds {type(content).__name__}, not tensors by name")
    return content


def _plain(content: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    import torch

    odd = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if odd:
        raise _refused(path, f"entry {odd[0]!r} is no tensor; give the state dict alone")
    return content


def _refused(path: Path, reason: str) -> WeightsError:
    return WeightsError(_RULE, given=f"{path}: {reason}", remedy=_REMEDY)
