"""The information of a model directory besides the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from automl_pt.core.text import one_line
from automl_pt.images.preprocessing import Preprocessing

#: the file with the temperature of the model's calibration, if any
TEMPERATURE = "temperature.json"
#: the file with the rule for unsure answers, if any
UNSURE = "unsure.safetensors"
MAX_CLASSES = 100_000
MAX_MEMBERS = 100


@dataclass(frozen=True)
class ModelInfo:
    """Everything needed to use, evaluate and repeat a model, as plain values."""

    #: the name of a registered backbone
    backbone: str
    #: class names in the order of the logits
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    #: the run's settings
    config: dict[str, Any]
    #: figures of the kept epoch: `epoch`, `val_loss`, `val_accuracy`, ...
    metrics: dict[str, Any]
    #: one entry per epoch, up to the kept one
    history: list[dict[str, Any]]
    #: of Python, automl-pt, torch, torchvision, timm
    versions: dict[str, Any]
    #: `fingerprint`, `source` and `counts` of the data
    data: dict[str, Any]
    #: third-party plugins that were loaded: `name`, `version`, `origin`
    plugins: list[dict[str, Any]]
    #: lines that build the network as `model` with torchvision or timm only, if they can
    recipe: str | None = None
    #: licence of the pretrained weights that the training started from, if any
    weights_license: str | None = None
    #: SHA-256 of their file, if the backbone states it
    weights_sha256: str | None = None
    #: number format of the validation's forward pass, and the type of device it ran on
    precision: str = "fp32"
    device: str = "cpu"
    #: of an ensemble, each network's `title`, `backbone`, `config` and `metrics`; the other fields are the first one's
    members: list[dict[str, Any]] = field(default_factory=list)

    def brief(self) -> dict[str, object]:
        """Return what one line shows of a model."""
        figures = {f"val_{name}": self.metrics.get(f"val_{name}") for name in ("loss", "accuracy")}
        return {
            "backbone": self.backbone,
            "classes": self.classes,
            "image_size": self.preprocessing.image_size,
            **{name: value for name, value in figures.items() if isinstance(value, float)},
        }

    def __repr__(self) -> str:
        return one_line("ModelInfo", self.brief())

    def each(self) -> list[ModelInfo]:
        """Return the information of each network of an ensemble, or of the single network."""
        own = ({key: member[key] for key in ("backbone", "config", "metrics")} for member in self.members)
        return [replace(self, **values, members=[]) for values in own] or [self]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**values, "classes": list(self.classes), "preprocessing": self.preprocessing.to_dict()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ModelInfo:
        """Rebuild the information from untrusted JSON; raise ValueError that says what is wrong.

        An unusable `preprocessing` raises InvalidModelDirectoryError.
        """
        given = {one.name: values[one.name] for one in fields(ModelInfo) if one.name in values}
        for name, kind in _KINDS.items():
            if name in given and not isinstance(given[name], kind):
                raise ValueError(f"{name} is {type(given[name]).__name__}, not {_said(kind)}")
        missing = sorted(_REQUIRED - set(given))
        if missing:
            raise ValueError(f"{', '.join(missing)} missing")
        if given.get("precision", "fp32") not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"precision is {given['precision']!r}, not fp32, bf16 or fp16")
        for name in ("history", "plugins"):
            if not all(isinstance(entry, dict) for entry in given[name]):
                raise ValueError(f"{name} holds something other than objects")
        _check_members(given.get("members", []))
        return ModelInfo(
            **{
                **given,
                "classes": _classes(given["classes"]),
                "preprocessing": Preprocessing.from_dict(given["preprocessing"]),
            }
        )


_KINDS: dict[str, type | tuple[type, ...]] = {
    "backbone": str,
    "classes": list,
    "preprocessing": dict,
    "config": dict,
    "metrics": dict,
    "history": list,
    "versions": dict,
    "data": dict,
    "plugins": list,
    "recipe": (str, type(None)),
    "weights_license": (str, type(None)),
    "weights_sha256": (str, type(None)),
    "precision": str,
    "device": str,
    "members": list,
}
_REQUIRED = {"backbone", "classes", "preprocessing", "config", "metrics", "history", "versions", "data", "plugins"}


def _check_members(members: list[Any]) -> None:
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"members has {len(members):,} entries; {MAX_MEMBERS} are allowed")
    wanted = {"title": str, "backbone": str, "config": dict, "metrics": dict}
    if not all(isinstance(member, dict) for member in members) or not all(
        isinstance(member.get(name), kind) for member in members for name, kind in wanted.items()
    ):
        raise ValueError("members holds an entry without title, backbone, config and metrics")


def _classes(names: list[Any]) -> tuple[str, ...]:
    if not 2 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"classes has {len(names):,} entries; from 2 to {MAX_CLASSES:,} are allowed")
    if not all(isinstance(name, str) for name in names):
        raise ValueError("classes holds something other than names")
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"classes names {twice!r} twice")
    return tuple(names)


def _said(kind: type | tuple[type, ...]) -> str:
    words = {str: "text", list: "a list", dict: "an object", type(None): "null"}
    return " or ".join(words[one] for one in (kind if isinstance(kind, tuple) else (kind,)))
