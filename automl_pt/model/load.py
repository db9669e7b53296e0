"""Loads a finished model from its directory, without network access and without running code from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn

from automl_pt.backbones.build import build_model
from automl_pt.backbones.random_state import kept_random_state
from automl_pt.backbones.weight_readings import GivenWeights
from automl_pt.backbones.weights import read_content, require_weights
from automl_pt.core.errors import AutomlError, ConfigError, InvalidModelDirectoryError, PluginError, UnknownNameError
from automl_pt.core.json_reader import parse_json
from automl_pt.core.missing_model import why_no_model
from automl_pt.core.text import few, one_line, printable
from automl_pt.images.decode import decode
from automl_pt.model.directory import (
    INFO,
    find_model,
    publish,
    read_info,
    read_model,
    refuse,
    require_model,
    save_model,
)
from automl_pt.model.ensemble import Ensemble, split_states
from automl_pt.model.fit import misfits, no_larger_than, outline, takes_images, unwrapped
from automl_pt.model.head_inputs import HeadInputs, head_inputs
from automl_pt.model.info import ModelInfo
from automl_pt.model.softmax import softmax
from automl_pt.model.temperature import read_temperature
from automl_pt.model.unsure import Answer, UnsureRule, require_rule
from automl_pt.model.unsure_file import read_rule
from automl_pt.plugins.faults import networks_fault
from automl_pt.plugins.manager import PluginFiles, Plugins, loaded_plugins
from automl_pt.plugins.provenance import how_to_get, told
from automl_pt.training.device import NumberFormat, choose_device
from automl_pt.training.evaluation import autocast
from automl_pt.training.layout import arrange, has_channels_last
from automl_pt.training.micro_batch import MicroBatch

__all__ = ["Model", "ModelInfo", "find_model", "given_weights", "load_model", "publish", "read_info", "save_model"]

#: limit of the header, larger than any network's list of tensors
MAX_HEADER_BYTES = 8 * 1024 * 1024
#: the batch size of validation, because another size may round the last bit differently
BATCH_SIZE = 64
#: endings of files of weights, to be suggested if a folder of them is given
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
Source = Path | str | NDArray[Any]


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode with its information."""

    info: ModelInfo
    #: the torch module: from images float32[B, 3, S, S] of `info.preprocessing` to logits float32[B, C]
    network: nn.Module
    device: torch.device
    precision: NumberFormat
    #: divisor of the logits before the softmax; 1 if no calibration was fitted or it is not used
    temperature: float = 1.0
    #: how many images the network takes at a time, reduced if memory ran out
    micro_batch: MicroBatch = field(default_factory=MicroBatch, compare=False)
    #: when an answer is unsure; None if no rule is kept with the model
    rule: UnsureRule | None = field(default=None, compare=False)
    #: keeps the features of images while the network runs
    head_inputs: HeadInputs = field(default_factory=lambda: HeadInputs(()), compare=False)

    def __repr__(self) -> str:
        return one_line("Model", {**self.info.brief(), "device": str(self.device)})

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in the order of the columns."""
        return self.info.classes

    def predict(self, sources: Sequence[Source], *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """Return probabilities float32[N, C] for N paths or arrays [H, W, C] or [H, W]; raise UnreadableImage."""
        return self.probabilities(self.logits(sources, batch_size=batch_size))

    def logits(self, sources: Sequence[Source], *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """Return logits float32[N, C] for N paths or arrays [H, W, C] or [H, W]; raise UnreadableImage."""
        batches = (sources[start : start + batch_size] for start in range(0, len(sources), batch_size))
        parts = [self.forward(self.pixels(batch)) for batch in batches]
        return np.concatenate([np.empty((0, len(self.classes)), np.float32), *parts])

    def pixels(self, sources: Iterable[Source]) -> NDArray[Any]:
        """Return images as the network's pixels, uint8[B, 3, S, S] for photographs; raise UnreadableImage."""
        size, pixels = self.info.preprocessing.image_size, self.info.preprocessing.pixels
        paths = (Path(source) if isinstance(source, str) else source for source in sources)
        return np.stack([decode(source, size, pixels=pixels) for source in paths])

    def forward(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return logits float32[B, C] for pixels [B, channels, S, S] from `pixels` or the cache.

        If memory runs out the network takes half as many images at a time, from then on; see `micro_batch`.
        """
        with torch.inference_mode(), autocast(self.device, self.precision):
            logits: NDArray[np.float32] = self.micro_batch(self._forward, torch.from_numpy(pixels)).numpy()
        return logits

    def forward_with_features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the logits of `forward`, and features float32[B, D]; D is 0 if the network has no linear head."""

        def both(part: Tensor) -> Tensor:
            with self.head_inputs.kept() as found:
                logits = self._forward(part)
            features = self.head_inputs.joined(found, len(part))
            return logits if features is None else torch.cat([logits, features.cpu()], dim=1)

        with torch.inference_mode(), autocast(self.device, self.precision):
            joined: NDArray[np.float32] = self.micro_batch(both, torch.from_numpy(pixels)).numpy()
        return joined[:, : len(self.classes)], joined[:, len(self.classes) :]

    def answers(self, sources: Sequence[Source], *, batch_size: int = BATCH_SIZE) -> list[Answer]:
        """Return for each of N paths or arrays its likely classes, and whether that answer is unsure.

        Raises UsageError if no rule is kept with the model, UnreadableImage.
        """
        rule, found = require_rule(self.rule, self.info), list[Answer]()
        for start in range(0, len(sources), batch_size):
            logits, features = self.forward_with_features(self.pixels(sources[start : start + batch_size]))
            found += rule.answers(logits, features)
        return found

    def _forward(self, pixels: Tensor) -> Tensor:
        images = self.info.preprocessing.normalise(pixels.to(self.device))
        if has_channels_last(self.device, self.precision):
            images = images.contiguous(memory_format=torch.channels_last)
        try:
            logits: Tensor = self.network(images).float().cpu()
        except (Exception, SystemExit) as error:
            blamed = networks_fault(error, self.info.backbone)
            if blamed is None:
                raise
            raise blamed from error
        return logits

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities of logits float32[..., C], at the model's temperature."""
        return softmax(logits, self.temperature)


def load_model(
    path: str | Path,
    *,
    device: str = "auto",
    plugins: Plugins | PluginFiles | None = None,
    allow_not_finite: bool = False,
    calibrated: bool = True,
) -> Model:
    """Load a model directory, or the one inside a study or run directory.

    Needs no network access and runs nothing from the directory: the backbone's name is looked up among `plugins`, which
    are plugin files, as for `--plugin`, or the result of `load_plugins` (default: the installed plugins). On the type
    of device it was validated on the model computes in the same number format, elsewhere in fp32. A temperature stored
    beside the model is used unless `calibrated` is false. Raises InvalidModelDirectoryError for anything but an intact
    model directory, for a backbone that no plugin registers, for the folder of a run or search that ended
    without a model, and, unless `allow_not_finite`, for weights with NaN or infinities.
    """
    directory, chosen = require_model(path), choose_device(device)
    info, weights, content = read_model(directory)
    tensors = _parse(directory, weights.file, content)
    del content
    _check_tensors(directory, info, tensors, allow_not_finite)
    loaded = loaded_plugins(plugins)
    network = _build(directory, info, loaded, tensors)
    # read_info has checked the precision
    precision: NumberFormat = info.precision if info.device == chosen.type else "fp32"  # type: ignore[assignment]
    kept = read_temperature(directory, weights.sha256) if calibrated else None
    network.eval()
    network = arrange(network, chosen, precision)
    inputs = _head_inputs(network, info, loaded)
    rule = read_rule(directory, weights.sha256, inputs.dimensions)
    temperature = 1.0 if kept is None else kept.temperature
    return Model(info, network, chosen, precision, temperature, rule=rule, head_inputs=inputs)


def given_weights(path: str | Path) -> GivenWeights:
    """Return the weights at `path`, to start a training from: a file, or a model directory of this toolkit.

    Raises InvalidModelDirectoryError for a folder that is not an intact model directory, WeightsError for other files.
    """
    path = Path(path)
    if not path.is_dir():
        return GivenWeights(path, read_content(path))
    directory = find_model(path)
    if not (directory / INFO).is_file():
        _refuse_folder(path)
    info, weights, content = read_model(directory)
    tensors = _parse(directory, weights.file, content)
    _check_tensors(directory, info, tensors, allow_not_finite=False)
    return GivenWeights(directory, tensors, info.backbone)


def require_given(path: str | Path) -> None:
    """Raise like `given_weights` if `path` is neither a file nor a model directory, without reading it."""
    path = Path(path)
    if not path.is_dir():
        require_weights(path)
    elif not (find_model(path) / INFO).is_file():
        _refuse_folder(path)


def _refuse_folder(path: Path) -> None:
    if (absence := why_no_model(path)) is not None:
        given = f"{printable(path)}: {absence.what}"
        raise InvalidModelDirectoryError("the folder for --weights holds no model", given=given, remedy=absence.remedy)
    files = [file.name for file in sorted(path.iterdir()) if file.suffix in WEIGHTS_SUFFIXES]
    raise InvalidModelDirectoryError(
        "the folder given as weights is not a model directory",
        given=f"{printable(path)}: it has no {INFO}" + (f", but {few(files)}" if files else ""),
        remedy=f"give the file itself: {printable(path / files[0])}"
        if files
        else "give a model, run or study directory of automl-pt, or a file of weights",
    )


def _parse(directory: Path, name: str, content: bytes) -> dict[str, Tensor]:
    header = int.from_bytes(content[:8], "little")
    if header > MAX_HEADER_BYTES:
        refuse(directory, f"{name}: its header claims {header:,} bytes; {MAX_HEADER_BYTES:,} are allowed")
    try:
        parse_json(content[8 : 8 + header])  # refuses a tensor that occurs twice
        return parse_safetensors(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        refuse(directory, f"{name} is not safetensors ({type(error).__name__}: {error})")


def _check_tensors(directory: Path, info: ModelInfo, tensors: Mapping[str, Tensor], allow_not_finite: bool) -> None:
    """Refuse weights that cannot belong to so many classes, or contain NaN, before anything is built."""
    count = len(info.classes)
    if not any(tensor.ndim and tensor.shape[0] == count for tensor in tensors.values()):
        refuse(directory, f"{INFO} lists {count:,} classes, but no tensor of the weights has as many rows")
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _finite(tensor)]
    if bad and not allow_not_finite:
        refuse(
            directory,
            f"not-finite numbers in {few(bad)}",
            remedy="train again with a lower learning rate, or load it with `load_model(..., allow_not_finite=True)`",
        )


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.float()).all())


def _build(directory: Path, info: ModelInfo, plugins: Plugins, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the network with its weights; refuse weights that do not fit before allocating memory for it."""
    if not info.members:
        return _network(directory, info, plugins, tensors)
    parts, others = split_states(tensors, len(info.members))
    _require_fit(directory, [f"{name} is not in the network" for name in others])
    # lazily, so that each is built only after the weights of the one before have fitted
    return Ensemble([_network(directory, *pair) for pair in zip(info.each(), repeat(plugins), parts, strict=False)])


def _head_inputs(network: nn.Module, info: ModelInfo, plugins: Plugins) -> HeadInputs:
    networks = list(network.members) if isinstance(network, Ensemble) else [network]
    return head_inputs(networks, [plugins.backbone(one.backbone, _options(Path(), one)) for one in info.each()])


def _network(directory: Path, info: ModelInfo, plugins: Plugins, tensors: Mapping[str, Tensor]) -> nn.Module:
    try:
        backbone = plugins.backbone(info.backbone, _options(directory, info))
    except UnknownNameError as error:
        refuse(directory, f"its backbone {info.backbone!r} is not registered", remedy=_plugin_needed(info, error))
    except ConfigError as error:
        refuse(directory, error.given.strip(), remedy="install the version of the plugin that it was trained with")
    classes, size, channels = len(info.classes), info.preprocessing.image_size, info.preprocessing.pixels.channels
    shape = outline(backbone, classes, size, channels) if plugins.is_builtin(backbone.name) else None
    if shape is not None:
        _require_fit(directory, misfits(shape.state_dict(), tensors))
    prove = shape is None or not takes_images(shape, classes, size, channels)
    try:
        # the seed only fills weights that are replaced; the caller's random state is restored
        with (
            kept_random_state(torch.device("cuda", index) for index in range(torch.cuda.device_count())),
            no_larger_than(tensors),
        ):
            network = build_model(backbone, classes, size, seed=0, channels=channels, prove=prove)
    except PluginError:
        raise  # the directory is intact, but building its network failed
    except AutomlError as error:
        refuse(directory, f"{error.rule}: {error.given}", remedy=error.remedy)
    wanted = network.state_dict()
    tensors = unwrapped(wanted, tensors)
    _require_fit(directory, misfits(wanted, tensors))
    network.load_state_dict(dict(tensors))
    return network


def _require_fit(directory: Path, found: Sequence[str]) -> None:
    if found:
        refuse(directory, f"the weights do not fit the network: {few(found, 3)}")


def _options(directory: Path, info: ModelInfo) -> list[str]:
    options = info.config.get("backbone_options") or []
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        refuse(directory, f"{INFO}: backbone_options is not a list of texts")
    return options


def _plugin_needed(info: ModelInfo, error: UnknownNameError) -> str:
    if not info.plugins:
        return error.remedy
    return f"the model was trained with {told(info.plugins)}: {how_to_get(info.plugins)}"
