"""Settings: frozen, checked when made, every mistake reported at once; to and from TOML.

A field's description is what `--help` and the README say of it. Ranges stand here alone: the command line, config
files and Python all come through these classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator, model_validator

from automl_pt.core.config_files import toml_mistake
from automl_pt.core.errors import ConfigError

Count = Annotated[int, Strict(), Field(gt=0)]
Several = Annotated[int, Strict(), Field(ge=2, le=100)]
CountOrZero = Annotated[int, Strict(), Field(ge=0)]
Seed = Annotated[int, Strict()]
#: strict, so that neither "0.2" nor true is taken for a number
Rate = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Strict(), Field(ge=0, lt=1)]
Flag = Annotated[bool, Strict()]

StopRule = Literal["consecutive", "best"]
Schedule = Literal["constant", "step", "polynomial", "cosine"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Augment = Literal["early", "always", "none"]
BatchNorm = Literal["auto", "keep", "train"]

C = TypeVar("C", bound="Settings")

#: learning rates of a search that trains a whole network from weights
FINE_TUNING_LR = (3e-4, 3e-2)
#: most epochs at the end of a run that see the images as they are (docs/evidence/recipe.md)
CLEAN_EPOCHS = 3


class Settings(BaseModel):
    """What a single run and a search have in common: the data, the recipe, the device."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=False)

    dataset: str = Field(description="a folder, archive or table of labelled images, or a registered dataset's name")
    root: str | None = Field(None, description="folder of a named dataset's files")
    download: Flag = Field(False, description="let a named dataset fetch its files into --root")
    val_fraction: Annotated[float, Strict(), Field(gt=0, lt=1)] = Field(
        0.2,
        description="share of the training images split off for validation when the data bring no split of their own",
    )
    test_fraction: Fraction = Field(
        0.0, description="share of all images split off as a test split when the data bring none"
    )
    max_bad: Fraction = Field(
        0.0, description="share of unreadable images that are left out, and listed, rather than ending the run"
    )
    image_column: str | None = Field(None, description="a table's column of image paths; default: guessed, and said")
    label_column: str | None = Field(None, description="a table's column of labels; default: guessed, and said")
    split_column: str | None = Field(None, description="a table's column that says train, val or test")
    group_column: str | None = Field(
        None, description="a table's column of groups that are never torn apart by a split"
    )
    group_by: str | None = Field(
        None,
        description="regular expression on relative paths; images with the same first group (or match) stay together",
    )
    follow_links: Flag = Field(
        False, description="take images outside the folder or table's folder that links within it lead to"
    )

    epochs: Count = Field(5, description="passes over the whole training split")
    patience: Count = Field(3, description="epochs without a lower validation loss, in a row, after which a run stops")
    stop_rule: StopRule = Field("consecutive", description="compare with the epoch before, or with the best so far")
    min_delta: NotNegative = Field(0.0, description="with stop rule 'best': by how much a loss must be lower to count")
    keep: Literal["best", "last"] = Field("best", description="which epoch's weights the model holds")
    seed: Seed = Field(1, description="any integer; fixes head, split, order, augmentation and dropout")

    image_size: Count | None = Field(
        None, description="side in pixels; default: the dataset's hint, else the backbone's"
    )
    augment: Augment = Field(
        "early",
        description="random shifts, and mirror images, where the dataset's hints allow them: early in all but the last "
        "epochs, half of them, rounded up, and at most three; always in all",
    )
    pretrained: Flag | None = Field(
        None,
        description="start from the backbone's pretrained weights, or from random ones; default: pretrained where the "
        "backbone has weights, unless the dataset's hints say otherwise",
    )
    weights: str | None = Field(
        None,
        description="start from this file (safetensors, state dict, checkpoint of a training) or model directory",
    )
    freeze: Literal["none", "backbone"] = Field("none", description="'backbone' trains the head alone")
    freeze_groups: CountOrZero = Field(
        0, description="parameter groups, counted from the input, that do not train; the last group always trains"
    )
    head: Literal["new", "probe"] = Field(
        "new",
        description="what the head starts from: 'new' is the head as the network is built, which is zero on weights; "
        "'probe' a logistic regression on the frozen network's features",
    )
    features: Literal["cached", "mirrored", "computed"] = Field(
        "cached",
        description="with a frozen backbone: 'cached' trains on features computed once, of the images as they are; "
        "'mirrored' adds those of mirror images; 'computed' runs the network in every epoch, on augmented images",
    )
    layer_decay: Annotated[float, Strict(), Field(gt=0, le=1)] = Field(
        1.0, description="factor on the learning rate for each parameter group further from the head; 1: all alike"
    )
    head_lr_factor: Rate = Field(1.0, description="factor on the learning rate of the head")
    batch_norm: BatchNorm = Field(
        "auto",
        description="statistics of batch normalisation: 'keep' leaves them, and uses them, as the run finds them; "
        "'train' takes each batch's own; auto keeps those of the weights a run starts from, and trains from scratch",
    )
    backbone_options: tuple[str, ...] = Field(
        (), description="NAME=VALUE: an option of the backbone's own; in a search it is then not searched"
    )

    momentum: Annotated[float, Strict(), Field(ge=0, lt=1)] = Field(0.9, description="momentum of SGD (Nesterov)")
    weight_decay: NotNegative = Field(1e-4, description="L2 penalty of SGD")
    schedule: Schedule = Field("cosine", description="how the learning rate falls over the epochs")
    warmup_epochs: CountOrZero = Field(0, description="epochs in which the learning rate rises to its value")
    label_smoothing: Fraction = Field(0.0, description="share of the target spread over the other classes")
    clip_grad_norm: Rate | None = Field(None, description="largest norm of a step's gradient")
    class_weights: Literal["none", "balanced"] = Field("none", description="'balanced' weights a class by its rarity")
    micro_batch_size: Count | None = Field(
        None, description="images per forward pass; gradients are accumulated up to the batch size"
    )
    ema_decay: Fraction = Field(0.0, description="decay per step of a moving average of the weights; 0 keeps none")

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda[:n] or mps")
    precision: Precision = Field("auto", description="number format of the forward pass; auto picks what is fast here")
    checkpoint_minutes: Rate = Field(10.0, description="an epoch longer than this is also saved on the way")
    deterministic: Flag = Field(False, description="ask PyTorch for deterministic CUDA kernels")
    cuda_graph: Flag = Field(True, description="on CUDA, record the training step once and replay it")
    compile: Literal["always", "never"] = Field(
        "never", description="on CUDA, 'always' compiles the network for full batches, which takes about a minute"
    )
    scale_lr: Flag = Field(True, description="with several processes, multiply the learning rate by their number")
    threads: Count | None = Field(None, description="CPU threads of one run; default: the cores this process may use")
    plugins: tuple[str, ...] = Field((), description="a plugin file to load")
    trackers: tuple[str, ...] = Field(
        (), description="a plugin that is told how the run or search goes, such as tensorboard; none is, unasked"
    )
    cache_dir: str | None = Field(
        None,
        description="folder of decoded images; default: AUTOML_PT_CACHE, else one in the user's cache folder",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_named_now(cls, settings: Any) -> Any:
        return as_named_now(settings) if isinstance(settings, dict) else settings

    @property
    def augmented_epochs(self) -> int:
        """Return how many epochs, from the first on, see augmented images; the others see them as they are."""
        return {"none": 0, "early": max(self.epochs // 2, self.epochs - CLEAN_EPOCHS), "always": self.epochs}[
            self.augment
        ]

    @property
    def keeps_batch_norm(self) -> bool:
        """Say whether batch normalisation keeps its running statistics, and uses them, while the weights train."""
        starts_trained = self.pretrained or self.weights is not None
        return self.batch_norm == "keep" or (self.batch_norm == "auto" and starts_trained)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if texts := [text for _, text in self.contradictions()]:
            raise ValueError("\n".join(texts))
        return self

    def contradictions(self) -> Iterator[tuple[set[str], str]]:
        """Yield the settings that do not fit together, and the rule that they break."""
        if self.warmup_epochs >= self.epochs:
            rule = f"warmup_epochs must be below epochs, got {self.warmup_epochs} and {self.epochs}"
            yield {"warmup_epochs", "epochs"}, rule
        if self.min_delta and self.stop_rule != "best":
            rule = "min_delta belongs to stop_rule 'best', got stop_rule 'consecutive'"
            yield {"min_delta", "stop_rule"}, rule
        if self.pretrained and self.weights:
            rule = "give pretrained or weights, not both: each says where the weights come from"
            yield {"pretrained", "weights"}, rule
        if self.freeze == "backbone" and (self.freeze_groups or self.layer_decay != 1):
            rule = "freeze 'backbone' trains the head alone: leave out freeze_groups and layer_decay"
            yield {"freeze", "freeze_groups", "layer_decay"}, rule
        if self.head == "probe" and self.pretrained is False and self.weights is None:
            rule = "head 'probe' is fitted to what trained weights give: give pretrained or weights"
            yield {"head", "pretrained", "weights"}, rule
        if self.group_column and self.group_by:
            rule = "give group_column or group_by, not both: each says which images belong together"
            yield {"group_column", "group_by"}, rule

    @property
    def starts_from_weights(self) -> bool:
        """Say whether training starts from weights that another training has left."""
        return bool(self.pretrained) or self.weights is not None

    @field_validator("backbone_options")
    @classmethod
    def _name_values(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        names = [option.partition("=")[0] for option in options if option.partition("=")[1]]
        if len(set(names)) < len(options) or not all(name.isidentifier() for name in names):
            raise ValueError("must be NAME=VALUE, each name once")
        return options

    @field_validator("group_by")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"must be a regular expression ({error})") from None
        return pattern


class TrainConfig(Settings):
    """Settings of one run with fixed parameters."""

    backbone: str = Field("resnet18", description="a registered backbone's name")
    batch_size: Count = Field(16, description="images per optimiser step")
    lr: Rate = Field(0.001, description="initial learning rate of SGD")


class SearchConfig(Settings):
    """Settings of a study."""

    backbones: tuple[str, ...] = Field(("resnet18",), min_length=1, description="backbones to search among")
    lr: tuple[Rate, Rate] = Field(
        (1e-4, 1.0),
        description="lowest and highest learning rate, searched log-uniformly; from weights, where the whole network "
        "trains, the default is 0.0003:0.03",
    )
    batch_sizes: tuple[Count, ...] | None = Field(
        None,
        min_length=1,
        description="batch sizes to choose from; default: powers of two from 8 to 256 that data and device allow",
    )
    trials: Count = Field(16, description="number of trials in the study")
    timeout: Rate | None = Field(None, description="seconds after which the search ends with what it has")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="the study's name; default: made from the dataset's",
    )
    storage: str | None = Field(None, description="an Optuna storage URL; default: SQLite in the study's folder")
    pruner: str = Field("rungs", description="which trials go on: rungs, an Optuna pruner's name, or none for all")
    workers: CountOrZero | None = Field(
        None, description="trials at a time; default: one per GPU, or per CPU core; 0 runs them in this process"
    )
    trial_timeout: Rate | None = Field(
        None, description="seconds without an epoch, or without progress after the trials, that count as hung"
    )
    keep_models: Count = Field(1, description="how many of the best trials keep their weights")
    probe: Flag = Field(
        True,
        description="where the search starts from weights: first fit a linear head to the frozen network's features: "
        "it is the study's first finished model, and what the trials are held against",
    )
    max_params: Count | None = Field(
        None, description="of several backbones only those with at most so many parameters: 10M, 500k, or a number"
    )
    max_ms: Rate | None = Field(
        None, description="of several backbones only those that take at most so many milliseconds for one image here"
    )
    report: Flag = Field(True, description="write report.html into the study's folder at the end")
    refit: Flag = Field(
        False, description="at the end, train the winner's settings on training and validation images: model-refit"
    )
    ensemble: Several | None = Field(
        None, description="at the end, average the probabilities of so many of the best trials: model-ensemble"
    )
    average: Several | None = Field(
        None,
        description="at the end, average the weights of up to so many of the best trials, which started from the same "
        "pretrained weights, where the validation loss falls: model-average",
    )
    stop_when_flat: Flag = Field(
        False, description="start no more trials once the last ones improved by less than the validation set's noise"
    )

    def for_start(self, *, pretrained: bool | None) -> Self:
        """Return the settings with `pretrained` settled, and the range of learning rates that fits the start.

        A range that was asked for stays. Where the whole network trains from weights, the default is another one.
        """
        update: dict[str, Any] = {"pretrained": pretrained if self.pretrained is None else self.pretrained}
        from_weights = bool(update["pretrained"]) or self.weights is not None
        if from_weights and "lr" not in self.model_fields_set and self.freeze == "none":
            update["lr"] = FINE_TUNING_LR
        asked = self.model_fields_set
        settled = self.model_copy(update=update)
        settled.__pydantic_fields_set__ = set(asked)  # what was asked for is what it was
        return settled

    @field_validator("max_params", mode="before")
    @classmethod
    def _with_unit(cls, value: Any) -> Any:
        """Read 10M as ten million, 500k as half a million, 1G as a thousand million."""
        found = re.fullmatch(r"\s*([0-9.]+)\s*([kMG])\s*", value) if isinstance(value, str) else None
        if found is None:
            return value
        return round(float(found[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[found[2]])

    def contradictions(self) -> Iterator[tuple[set[str], str]]:
        """Yield the settings that do not fit together, and the rule that they break."""
        yield from super().contradictions()
        is_from_scratch = self.pretrained is False and self.weights is None
        if (self.max_params or self.max_ms) and (is_from_scratch or not self.probe):
            rule = (
                "max_params and max_ms bound the choice by probes: give pretrained or weights, and leave the probe on"
            )
            yield {"max_params", "max_ms", "probe", "pretrained", "weights"}, rule
        if self.lr[0] > self.lr[1]:
            yield {"lr"}, f"lr must go from low to high, got {self.lr[0]:g}:{self.lr[1]:g}"
        if self.average and self.pretrained is False and not self.weights:
            rule = "average needs pretrained or weights: only trials that started from the same weights can be averaged"
            yield {"average", "pretrained", "weights"}, rule

    @property
    def models_kept(self) -> int:
        """Return how many of the best trials keep their weights, those that are to be joined among them."""
        return max(self.keep_models, self.ensemble or 1, self.average or 1)

    def trial(
        self,
        *,
        backbone: str,
        lr: float,
        batch_size: int,
        seed: int,
        backbone_options: tuple[str, ...] = (),
        head: str | None = None,
    ) -> TrainConfig:
        """Fix the searched settings and the seed: the run that one trial is; its options come after those given."""
        shared = {name: getattr(self, name) for name in Settings.model_fields}
        own = {"backbone": backbone, "lr": lr, "batch_size": batch_size, "seed": seed, "trackers": ()}
        own |= {} if head is None else {"head": head}
        return TrainConfig(**{**shared, **own, "backbone_options": self.backbone_options + backbone_options})


def as_named_now(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as this version names them: earlier ones augmented every epoch, or compiled, with `auto`."""
    return {
        name: "always" if name in ("augment", "compile") and value == "auto" else value
        for name, value in settings.items()
    }


def as_made(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a record holds as this version names them, with what earlier versions always did.

    Before `batch_norm` was a setting the statistics were trained, on pretrained weights, too.
    """
    starts_trained = bool(settings.get("pretrained") or settings.get("weights"))
    earlier = {"batch_norm": "train"} if starts_trained and "batch_norm" not in settings else {}
    return {**as_named_now(settings), **earlier}


def make(kind: type[C], settings: Mapping[str, Any], *, source: str = "settings", toml: bool = False) -> C:
    """Build settings of `kind`, or raise one ConfigError that lists every mistake, with `toml` in TOML's words."""
    try:
        return kind(**settings)
    except ValidationError as error:
        raise ConfigError(_mistakes(kind, settings, error, toml), source=source) from None


def _mistakes(kind: type[Settings], settings: Mapping[str, Any], error: ValidationError, toml: bool) -> list[str]:
    """List all mistakes; contradictions too, between settings that are right each for itself."""
    found = []
    for item in error.errors():
        field = kind.model_fields.get(str(item["loc"][0])) if item["loc"] else None
        own = toml_mistake(item, field.default if field else None) if toml else None
        found += (own or _mistake(kind, item["loc"], item["msg"], item.get("input"), item["type"])).split("\n")
    wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    if not wrong:
        return found
    right = kind.model_construct(**{name: value for name, value in settings.items() if name not in wrong})
    return found + [rule for names, rule in right.contradictions() if not names & wrong]


def _mistake(kind: type[Settings], location: tuple[int | str, ...], message: str, given: object, type_: str) -> str:
    name = ".".join(str(part) for part in location)
    if type_ == "extra_forbidden":
        near = get_close_matches(name, kind.model_fields, n=1)
        return f"{name}: unknown setting" + (f"; did you mean {near[0]!r}?" if near else "")
    if type_ == "missing":
        return f"{name}: required"
    rule = message.removeprefix("Value error, ")
    rule = rule.removeprefix("Input ")
    return f"{name}: {rule}, got {given!r}" if name else rule
