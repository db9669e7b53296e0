"""Reads weights from untrusted files without running code, and accepts them only if they fit.

safetensors files hold nothing but tensors. PyTorch's own files hold a pickle, which is read with `weights_only=True`:
this unpickler builds tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

import re
import shlex
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError  # the exception class only; nothing is unpickled here
from typing import TYPE_CHECKING, Any

from automl_pt.core.errors import WeightsError
from automl_pt.core.files import not_found
from automl_pt.core.missing_model import why_no_model
from automl_pt.core.text import printable

if TYPE_CHECKING:
    from torch import Tensor, nn

_RULE = "the file of weights is not intact safetensors or a plain state dict"
_REMEDY = "save it again with `safetensors.torch.save_file(model.state_dict(), FILE)` in the original program"
#: a tar archive's marker in its first header block
_TAR_MAGIC_AT, _TAR_MAGIC = 257, b"ustar"
#: the first byte of a pickle, which torch.save wrote before PyTorch 1.6
_PICKLE_MAGIC = b"\x80"
#: what a pickle imports, as named by PyTorch's refusal
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
#: limit of misfits in one message
_SHOWN = 5


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or plain state dict, on the CPU, by name.

    Raises WeightsError for anything else: what `read_content` refuses, and a checkpoint that holds the state dict as
    one entry among others.
    """
    return _plain(read_content(path), path)


def read_content(path: Path) -> dict[Any, Any]:
    """Return the content of a safetensors file or a file of torch.save, if it is a dict of tensors and plain values.

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
    """Raise WeightsError if `path` is not a file."""
    if path.is_dir():
        raise _folder(path)
    if not path.is_file():
        raise WeightsError(not_found(path), given=printable(path), remedy="check the path given to --weights")


def _folder(path: Path) -> WeightsError:
    """Return an error that names the file of weights in a folder, or says why it holds none."""
    found = sorted(file for place in (path, path / "model") for file in place.glob("weights-*.safetensors"))
    absence = None if found else why_no_model(path)
    if found:
        remedy = f"name the file in it: --weights {shlex.quote(printable(found[-1]))}"
    else:
        remedy = "name a file of weights" if absence is None else absence.remedy
    what = f"{printable(path)}, a folder" + ("" if absence is None else f" without a model, because {absence.what}")
    return WeightsError("--weights was given a folder, not a file", given=what, remedy=remedy)


def misfits(model: nn.Module, tensors: Mapping[str, Tensor], heads: Sequence[str]) -> list[str]:
    """Return what keeps `tensors` from being the weights of `model`, apart from `heads`; empty if they fit."""
    wanted = model.state_dict()
    found = []
    for name in sorted({*wanted, *tensors}):
        if in_modules(name, heads):
            continue
        if name not in tensors:
            # files from before PyTorch 0.4.1 do not count batches, and nothing here depends on the count
            if not name.endswith("num_batches_tracked"):
                found.append(f"{name} is missing")
        elif name not in wanted:
            found.append(f"{name} is not in the network")
        elif wanted[name].shape != tensors[name].shape:
            found.append(f"{name} is {list(tensors[name].shape)}, the network's is {list(wanted[name].shape)}")
    return found


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], heads: Sequence[str]) -> bool:
    """Copy fitting `tensors` into `model`; return whether its head is among them.

    A head with another number of classes keeps its initialisation.
    """
    wanted = model.state_dict()
    head = {name for name in wanted if in_modules(name, heads)}
    same_head = all(name in tensors and tensors[name].shape == wanted[name].shape for name in head)
    taken = {name: tensor for name, tensor in tensors.items() if name in wanted and (same_head or name not in head)}
    model.load_state_dict(taken, strict=False)
    return same_head


def has_any(model: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether any of `tensors` has the name of one of the model's."""
    return not tensors.keys().isdisjoint(model.state_dict())


def misfit_error(
    path: Path, backbone: str, found: Sequence[str], *, way: str = "", of: str | None = None
) -> WeightsError:
    """List the tensors that do not fit, the first few in full; `way` says how the file was read, `of` whose it is."""
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
    """Return whether a tensor's name is within one of the modules."""
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
    """Load a zip of torch.save; only uncompressed members, because a small compressed file can fill the memory."""
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
            # PyTorch warns about pickles of other programs; those that it cannot read are refused below
            warnings.simplefilter("ignore", UserWarning)
            # timm's checkpoints hold the settings of the training script in this container of plain values
            with torch.serialization.safe_globals([Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the errors for damaged or hostile files vary and are not documented
        raise _refused(path, _why(error)) from error


def _why(error: Exception) -> str:
    """Explain why torch.load refused, without its own text, which advises to load the pickle unsafely."""
    code = _GLOBAL.search(str(error))
    if code:
        return f"it would run {code[1]} when loaded"
    if isinstance(error, UnpicklingError):
        return "a damaged pickle, or one of something other than tensors by name"
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def _dict(content: Any, path: Path) -> dict[Any, Any]:
    if not isinstance(content, dict) or not content:
        raise _refused(path, f"it holds {type(content).__name__}, not tensors by name")
    return content


def _plain(content: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    import torch

    odd = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if odd:
        raise _refused(path, f"entry {odd[0]!r} is not a tensor; give the state dict alone")
    return content


def _refused(path: Path, reason: str) -> WeightsError:
    return WeightsError(_RULE, given=f"{path}: {reason}", remedy=_REMEDY)
