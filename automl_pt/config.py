"""Settings: frozen, validated on creation, with all mistakes reported at once; to and from TOML.

A field's description is its text in `--help` and the reference. Ranges are defined only here, because the command
line, config files and Python all use these classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)

from automl_pt.core.config_files import toml_mistake
from automl_pt.core.errors import ConfigError
from automl_pt.core.search_entries import Entry, Registered, as_texts, corners, parse_entries, registered

Count = Annotated[int, Strict(), Field(gt=0)]
Several = Annotated[int, Strict(), Field(ge=2, le=100)]
CountOrZero = Annotated[int, Strict(), Field(ge=0)]
Seed = Annotated[int, Strict()]
#: strict, so that neither "0.2" nor true counts as a number
Rate = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Strict(), Field(ge=0, lt=1)]
Flag = Annotated[bool, Strict()]

StopRule = Literal["consecutive", "best"]
Schedule = Literal["constant", "step", "polynomial", "cosine"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Augment = Literal["early", "always", "none"]
BatchNorm = Literal["auto", "keep", "train"]


def _class_weights(given: Any) -> str | tuple[tuple[str, float], ...]:
    """Read 'none', 'balanced', 'cat=2,dog=1', a table of weights by name, or the pairs that records hold."""
    if given in ("none", "balanced"):
        return str(given)
    rule = "must be none, balanced, or NAME=WEIGHT,... with weights above 0 and each class once"
    if isinstance(given, str):
        given = _written_weights(given)
    try:
        pairs = [(name, weight) for name, weight in (given.items() if isinstance(given, Mapping) else given)]
    except (TypeError, ValueError):
        raise ValueError(rule) from None
    names = [name for name, _ in pairs]
    if not pairs or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(rule)
    if not all(type(weight) in (int, float) and 0 < weight < math.inf for _, weight in pairs):
        raise ValueError(rule)
    return tuple(sorted((name, float(weight)) for name, weight in pairs))


def _written_weights(text: str) -> list[tuple[str, float]]:
    """Read NAME=WEIGHT,... ; a name may hold the sign of equality, and one with a comma is given in a TOML file."""
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        return [(name.strip(), float(weight)) for name, _, weight in parts]
    except ValueError:
        return []


def _plain_weights(weights: str | tuple[tuple[str, float], ...]) -> Any:
    """Return class weights as JSON holds them, which is how records are compared."""
    return weights if isinstance(weights, str) else [list(pair) for pair in weights]


ClassWeights = Annotated[
    Literal["none", "balanced"] | tuple[tuple[str, float], ...],
    PlainValidator(_class_weights),
    PlainSerializer(_plain_weights),
]

C = TypeVar("C", bound="Settings")

#: default learning rates of a search that trains a whole network from weights
FINE_TUNING_LR = (3e-4, 3e-2)
#: the backbone's name that stands for those whose pretrained weights are on this machine
AUTO = "auto"
#: limit of the unaugmented epochs at the end of a run (docs/evidence/recipe.md)
CLEAN_EPOCHS = 3


class Settings(BaseModel):
    """The settings that single runs and searches share: data, training, device."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=False)

    dataset: str = Field(description="a folder, archive or table of labelled images, or a registered dataset's name")
    root: str | None = Field(None, description="folder of a named dataset's files")
    download: Flag = Field(False, description="allow a named dataset to download its files to --root")
    val_fraction: Annotated[float, Strict(), Field(gt=0, lt=1)] = Field(
        0.2,
        description="share of the training images split off for validation if the data have no validation split",
    )
    test_fraction: Fraction = Field(
        0.0, description="share of all images split off as a test split if the data have none"
    )
    max_bad: Fraction = Field(
        0.0, description="share of unreadable images that may be skipped, and listed, without ending the run"
    )
    image_column: str | None = Field(None, description="a table's column of image paths; default: guessed, with a note")
    label_column: str | None = Field(None, description="a table's column of labels; default: guessed, with a note")
    split_column: str | None = Field(None, description="a table's column that states train, val or test")
    group_column: str | None = Field(
        None, description="a table's column of groups; images of one group are always in the same split"
    )
    group_by: str | None = Field(
        None,
        description="regular expression on relative paths; images with the same first group (or match) stay together",
    )
    follow_links: Flag = Field(
        False, description="use images outside the folder, or the table's folder, that links in it lead to"
    )

    epochs: Count = Field(5, description="passes over the whole training split")
    objective: str = Field(
        "val_loss",
        description="what chooses the epoch that is kept, ends a run early and ranks ended trials: val_loss, accuracy, "
        "macro_f1, balanced_accuracy, or another registered metric",
    )
    patience: Count = Field(
        3, description="epochs in a row whose objective is not better, after which a run stops; by default the loss"
    )
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
    augmentation: Annotated[str, Registered("augmentation", joined="+")] = Field(
        "shift-flip",
        description="what is done to training images: none, shift-flip (as the dataset's hints allow), crop, trivial, "
        "rand, mixup, cutmix, or a plugin's; several joined by +, such as crop+mixup",
    )
    transforms: tuple[dict[str, Any], ...] = Field(
        (), description="augmentations with arguments, after that one, in a config file: [[transforms]] and a name"
    )
    pretrained: Flag | None = Field(
        None,
        description="start from the backbone's pretrained weights, or from random ones; default: pretrained if the "
        "backbone has weights, unless the dataset's hints say otherwise",
    )
    weights: str | None = Field(
        None,
        description="start from this file (safetensors, state dict, training checkpoint) or model directory",
    )
    freeze: Literal["none", "backbone"] = Field("none", description="'backbone' trains only the head")
    freeze_groups: CountOrZero = Field(
        0, description="number of frozen parameter groups, counted from the input; the last group always trains"
    )
    head: Literal["new", "probe"] = Field(
        "new",
        description="what the head starts from: 'new' is the network's initialisation, which is zero on weights; "
        "'probe' a logistic regression on the frozen network's features",
    )
    features: Literal["cached", "mirrored", "computed"] = Field(
        "cached",
        description="with a frozen backbone: 'cached' trains on features computed once, of unaugmented images; "
        "'mirrored' adds those of mirror images; 'computed' runs the network in every epoch, on augmented images",
    )
    layer_decay: Annotated[float, Strict(), Field(gt=0, le=1)] = Field(
        1.0, description="factor on the learning rate per parameter group away from the head; 1: equal rates"
    )
    head_lr_factor: Rate = Field(1.0, description="factor on the learning rate of the head")
    batch_norm: BatchNorm = Field(
        "auto",
        description="statistics of batch normalisation: 'keep' uses and keeps the existing ones; "
        "'train' uses each batch's own; auto keeps those of the weights a run starts from, and trains from scratch",
    )
    backbone_options: tuple[str, ...] = Field(
        (), description="NAME=VALUE: an option of the backbone; a search then does not search it"
    )

    optimizer: Annotated[str, Registered("optimizer")] = Field(
        "sgd",
        description="optimiser: sgd (the documented one), adamw, schedule-free-adamw, or a plugin's; what is not given "
        "of lr, momentum, weight_decay, schedule and warmup_epochs then has the optimiser's published value",
    )
    momentum: Annotated[float, Strict(), Field(ge=0, lt=1)] = Field(
        0.9, description="Nesterov momentum of SGD; beta1 of AdamW and similar optimisers"
    )
    weight_decay: NotNegative = Field(
        1e-4, description="L2 penalty of SGD; decoupled weight decay, times the learning rate, of AdamW"
    )
    weight_decay_on: Literal["all", "weights"] = Field(
        "all", description="'weights' excludes biases and normalisation parameters from the weight decay"
    )
    schedule: Schedule = Field("cosine", description="how the learning rate falls over the epochs")
    warmup_epochs: CountOrZero = Field(0, description="epochs in which the learning rate rises to its value")
    label_smoothing: Fraction = Field(0.0, description="share of the target spread over the other classes")
    clip_grad_norm: Rate | None = Field(None, description="largest norm of a step's gradient")
    class_weights: ClassWeights = Field(
        "none",
        description="weight of each class in the training loss: none, 'balanced' by its rarity, or by name, such as "
        "cat=2,dog=1; a class that is not named weighs 1",
    )
    sampling: Literal["each", "balanced"] = Field(
        "each",
        description="'each' trains on every image once an epoch; 'balanced' draws every class equally often: images of "
        "rare classes several times, of frequent ones not all",
    )
    micro_batch_size: Count | None = Field(
        None, description="images per forward pass; gradients are accumulated up to the batch size"
    )
    ema_decay: Fraction = Field(0.0, description="decay per step of a moving average of the weights; 0 keeps none")

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda[:n] or mps")
    precision: Precision = Field("auto", description="number format of the forward pass; auto: what is fast here")
    checkpoint_minutes: Rate = Field(10.0, description="minutes between checkpoints within a long epoch")
    deterministic: Flag = Field(False, description="ask PyTorch for deterministic CUDA kernels")
    cuda_graph: Flag = Field(True, description="on CUDA, record the training step once and replay it")
    compile: Literal["always", "never"] = Field(
        "never", description="on CUDA, 'always' compiles the network for full batches, which takes about a minute"
    )
    scale_lr: Flag = Field(True, description="with several processes, multiply the learning rate by their number")
    threads: Count | None = Field(None, description="CPU threads of one run; default: the cores this process may use")
    plugins: tuple[str, ...] = Field((), description="a plugin file to load")
    trackers: tuple[str, ...] = Field(
        (), description="a plugin that receives the events of the run or search, such as tensorboard; default: none"
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
        """Return how many epochs, from the first on, use augmented images; later ones do not."""
        return {"none": 0, "early": max(self.epochs // 2, self.epochs - CLEAN_EPOCHS), "always": self.epochs}[
            self.augment
        ]

    @property
    def keeps_batch_norm(self) -> bool:
        """Return whether batch normalisation keeps and uses its running statistics while the weights train."""
        starts_trained = self.pretrained or self.weights is not None
        return self.batch_norm == "keep" or (self.batch_norm == "auto" and starts_trained)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if texts := [text for _, text in self.contradictions()]:
            raise ValueError("\n".join(texts))
        return self

    def contradictions(self) -> Iterator[tuple[set[str], str]]:
        """Yield the settings that contradict each other, and the violated rule."""
        if self.warmup_epochs >= self.epochs:
            rule = f"warmup_epochs must be below epochs, got {self.warmup_epochs} and {self.epochs}"
            yield {"warmup_epochs", "epochs"}, rule
        if self.min_delta and self.stop_rule != "best":
            rule = "min_delta belongs to stop_rule 'best', got stop_rule 'consecutive'"
            yield {"min_delta", "stop_rule"}, rule
        if self.pretrained and self.weights:
            rule = "give pretrained or weights, not both: each states where the weights come from"
            yield {"pretrained", "weights"}, rule
        if self.freeze == "backbone" and (self.freeze_groups or self.layer_decay != 1):
            rule = "freeze 'backbone' trains only the head: remove freeze_groups and layer_decay"
            yield {"freeze", "freeze_groups", "layer_decay"}, rule
        changes_images = self.augmentation not in ("shift-flip", "none") or self.transforms
        if self.freeze == "backbone" and self.features != "computed" and changes_images:
            rule = "features are those of the images as they are: with freeze 'backbone' and another augmentation give "
            yield {"freeze", "features", "augmentation", "transforms"}, f"{rule}features 'computed'"
        if self.head == "probe" and self.pretrained is False and self.weights is None:
            rule = "head 'probe' is fitted to the features of trained weights: give pretrained or weights"
            yield {"head", "pretrained", "weights"}, rule
        if self.class_weights == self.sampling == "balanced":
            yield {"class_weights", "sampling"}, "give class_weights or sampling 'balanced', not both: each balances"
        if self.group_column and self.group_by:
            rule = "give group_column or group_by, not both: each states which images belong together"
            yield {"group_column", "group_by"}, rule

    def tried(self, name: str) -> tuple[Any, ...]:
        """Return the values of a setting that runs have: the one that is set, or those that are searched."""
        return (getattr(self, name),)

    def registered_names(self) -> Iterator[tuple[str, str]]:
        """Yield what the settings name of what plugins register, each as (kind, name)."""
        for name, field in type(self).model_fields.items():
            if (of := registered(field)) is not None:
                yield from ((of.kind, part) for value in self.tried(name) for part in of.names(value))

    @property
    def starts_from_weights(self) -> bool:
        """Return whether training starts from trained weights."""
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
    lr: Rate = Field(0.001, description="initial learning rate; 0.001 is that of SGD")


def _shared(why: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), why)


#: fields of a run in which the trials of a study cannot differ, and why; they may differ in any other
SHARED = {
    **_shared("all trials of a study train and validate on the same images", "dataset root download val_fraction"),
    **_shared("all trials of a study train and validate on the same images", "test_fraction max_bad follow_links"),
    **_shared("all trials of a study train and validate on the same images", "image_column label_column split_column"),
    **_shared("all trials of a study train and validate on the same images", "group_column group_by"),
    **_shared("trials of other lengths cannot be compared", "epochs patience stop_rule min_delta keep"),
    **_shared("all trials of a study are ranked by one objective", "objective"),
    **_shared("the probe and the range of learning rates suit one start", "pretrained weights freeze head features"),
    **_shared("each trial has a seed of its own, made from the study's", "seed"),
    **_shared("memory and speed of a trial are measured once for all", "image_size micro_batch_size precision"),
    **_shared("it says how or where a run is computed, not what", "device threads deterministic cuda_graph compile"),
    **_shared("it says how or where a run is computed, not what", "checkpoint_minutes cache_dir plugins trackers"),
    **_shared("it says how or where a run is computed, not what", "scale_lr"),
}
#: searched by a setting of its own; what an entry for it has to look like
OWN_SETTINGS = {
    "lr": ("lr", "lr is searched on a log scale, LOW:HIGH such as 1e-4:1.0, and is given once, here or by --lr"),
    "batch_size": ("batch_sizes", "batch_size takes sizes such as 8,16,32, given once, here or by --batch-size"),
    "backbone": ("backbones", "backbone takes names separated by commas, given once, here or by --backbone"),
}


class SearchConfig(Settings):
    """Settings of a study."""

    backbones: tuple[str, ...] = Field(
        ("resnet18",),
        min_length=1,
        description="backbones to search among, of which the linear probes choose; 'auto': those whose pretrained "
        "weights are on this machine",
    )
    lr: tuple[Rate, Rate] = Field(
        (1e-4, 1.0),
        description="lowest and highest learning rate, searched log-uniformly; from weights, if the whole network "
        "trains, the default is 0.0003:0.03",
    )
    batch_sizes: tuple[Count, ...] | None = Field(
        None,
        min_length=1,
        description="batch sizes to choose from; default: powers of two from 8 to 256 that data and device allow",
    )
    search: tuple[str, ...] = Field(
        (),
        description="a further setting of a run to search: NAME=LOW:HIGH, on a log scale where HIGH is at least 100 "
        "times LOW (or LOW:HIGH:log, LOW:HIGH:linear); NAME=VALUE,VALUE,...; or NAME alone for all values of a choice. "
        "Trial 0 has the value that the setting has otherwise, or the nearest",
    )
    rivals: tuple[str, ...] = Field(
        (),
        description="optimizers, separated by commas, whose published settings compete untuned, each as a trial beside "
        "--trials, by the same rule; the report says what the search gained over the best of them and of trial 0; none",
    )
    trials: Count = Field(16, description="number of trials in the study")
    timeout: Rate | None = Field(None, description="time limit in seconds, after which the search ends")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="the study's name; default: made from the dataset's",
    )
    storage: str | None = Field(None, description="an Optuna storage URL; default: SQLite in the study's folder")
    sampler: str = Field("tpe", description="what chooses the next trial's settings: tpe, halton, random or a plugin's")
    pruner: str = Field(
        "rungs", description="which trials continue: rungs, an Optuna pruner's name, a plugin's, or none for all"
    )
    engine: str | None = Field(
        None,
        min_length=1,
        description="where trials run: processes (the default), inline for this process, ray for a cluster, "
        "or an executor of a plugin",
    )
    ray_address: str | None = Field(
        None,
        min_length=1,
        description="with engine ray: the cluster's HOST:PORT; default: RAY_ADDRESS, or the cluster that runs here",
    )
    gpus_per_trial: Rate | None = Field(
        None, description="with engine ray: GPUs of each trial, such as 1, or 0.5 for two trials on one; default: none"
    )
    cpus_per_trial: Count | None = Field(None, description="with engine ray: CPU cores of each trial; default: 1")
    workers: CountOrZero | None = Field(
        None,
        description="trials at a time; default: one per GPU, or per CPU core, and one where trials train a head on "
        "features; 0 runs them in this process",
    )
    trial_timeout: Rate | None = Field(
        None, description="seconds without an epoch, or without progress after the trials, that count as hung"
    )
    keep_models: Count = Field(1, description="how many of the best trials keep their weights")
    probe: Flag = Field(
        True,
        description="if the search starts from weights: first fit a linear head to the frozen network's features, "
        "which is the study's first finished model and a floor for the trials",
    )
    max_params: Count | None = Field(
        None, description="of several backbones only those with at most this many parameters: 10M, 500k, or a number"
    )
    max_ms: Rate | None = Field(
        None, description="of several backbones only those that take at most this many milliseconds for one image here"
    )
    report: Flag = Field(True, description="write report.html into the study's folder at the end")
    refit: Flag = Field(
        False, description="at the end, train the winner's settings on training and validation images: model-refit"
    )
    ensemble: Several | None = Field(
        None, description="at the end, average the probabilities of this many of the best trials: model-ensemble"
    )
    average: Several | None = Field(
        None,
        description="at the end, average the weights of up to this many of the best trials, all started from the same "
        "pretrained weights, if the validation loss falls: model-average",
    )
    stop_when_flat: Flag = Field(
        False, description="start no more trials once the last ones improved by less than the validation set's noise"
    )

    def for_start(
        self, *, pretrained: bool | None, ranges: tuple[tuple[float, float], tuple[float, float]] | None = None
    ) -> Self:
        """Return the settings with `pretrained` settled, and the range of learning rates that fits the start.

        A range that the user gave stays. Where the whole network trains from weights, the default is another one.
        `ranges` are the optimiser's, from random weights and from trained ones; None: those of SGD.
        """
        asked = self.model_fields_set
        settled = self.model_copy(update={"pretrained": pretrained if self.pretrained is None else self.pretrained})
        if "lr" not in asked:
            from_scratch, fine_tuning = ranges or (self.lr, FINE_TUNING_LR)
            settled = settled.model_copy(update={"lr": fine_tuning if settled.fine_tunes else from_scratch})
        settled.__pydantic_fields_set__ = set(asked)  # still the fields that the user gave
        return settled

    @property
    def fine_tunes(self) -> bool:
        """Return whether the whole network trains from weights."""
        return self.starts_from_weights and self.freeze == "none"

    @model_validator(mode="before")
    @classmethod
    def _entries_with_own_settings(cls, settings: Any) -> Any:
        return with_own_settings(settings) if isinstance(settings, dict) and "search" in settings else settings

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return what is searched besides learning rate, batch size and backbone."""
        return parse_entries(self.search, TrainConfig, SHARED)[0]

    def tried(self, name: str) -> tuple[Any, ...]:
        """Return the values of a setting that trials have: those of its entry, or the one that is set."""
        entry = next((entry for entry in self.entries if entry.name == name), None)
        return super().tried(name) if entry is None else entry.ends

    def registered_names(self) -> Iterator[tuple[str, str]]:
        """Yield what the settings name, the rivals after the others."""
        yield from super().registered_names()
        yield from (("optimizer", name) for name in self.rivals)

    @field_validator("rivals", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """Read names separated by commas, or the word none; a name that is given twice counts once."""
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
            return value
        stripped = tuple(dict.fromkeys(name.strip() for name in names))
        return () if stripped == ("none",) else stripped

    @field_validator("max_params", mode="before")
    @classmethod
    def _with_unit(cls, value: Any) -> Any:
        """Read 10M as ten million, 500k as half a million, 1G as a thousand million."""
        found = re.fullmatch(r"\s*([0-9.]+)\s*([kMG])\s*", value) if isinstance(value, str) else None
        if found is None:
            return value
        return round(float(found[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[found[2]])

    def contradictions(self) -> Iterator[tuple[set[str], str]]:
        """Yield the settings that contradict each other, and the violated rule."""
        yield from super().contradictions()
        is_from_scratch = self.pretrained is False and self.weights is None
        if (self.max_params or self.max_ms) and (is_from_scratch or not self.probe):
            rule = "max_params and max_ms limit the choice by probes: give pretrained or weights, and keep the probe on"
            yield {"max_params", "max_ms", "probe", "pretrained", "weights"}, rule
        if self.engine is not None and self.workers is not None and (self.engine == "inline") != (self.workers == 0):
            rule = "engine 'inline' is the same as workers 0, and runs one trial at a time: give one of the two"
            yield {"engine", "workers"}, f"{rule}, got engine {self.engine!r} and workers {self.workers}"
        yield from self._of_ray()
        if AUTO in self.backbones and (self.pretrained is False or self.weights is not None or not self.probe):
            rule = "backbone auto compares pretrained backbones by their probes: leave out weights and --from-scratch"
            yield {"backbones", "pretrained", "weights", "probe"}, f"{rule}, and leave the probe on"
        if self.lr[0] > self.lr[1]:
            yield {"lr"}, f"lr must go from low to high, got {self.lr[0]:g}:{self.lr[1]:g}"
        yield from self._search_mistakes()
        if self.average and self.pretrained is False and not self.weights:
            rule = "average needs pretrained or weights: only trials that started from the same weights can be averaged"
            yield {"average", "pretrained", "weights"}, rule

    def _of_ray(self) -> Iterator[tuple[set[str], str]]:
        given = [
            name for name in ("ray_address", "gpus_per_trial", "cpus_per_trial") if getattr(self, name) is not None
        ]
        if given and self.engine != "ray":
            rule = f"{', '.join(given)}: belongs to engine 'ray', got engine {self.engine!r}"
            yield {"engine", *given}, rule
        if self.engine == "ray" and self.device != "auto":
            rule = "with engine 'ray' a trial's device follows from gpus_per_trial: leave out device"
            yield {"engine", "device"}, f"{rule}, got {self.device!r}"

    def _search_mistakes(self) -> Iterator[tuple[set[str], str]]:
        """Yield what is wrong with the searched settings: each for itself, or beside the others."""
        given = [(text.partition("=")[0].strip(), text) for text in as_texts(self.search) if isinstance(text, str)]
        own = SearchConfig.model_fields.keys() - TrainConfig.model_fields.keys()
        for name, _ in given:
            if name in OWN_SETTINGS:
                yield {"search"}, f"search: {OWN_SETTINGS[name][1]}"
            elif name in own:
                yield {"search"}, f"search: {name} is a setting of the search, not of a run; give it outside of search"
        rest = [text for name, text in given if name not in {*OWN_SETTINGS, *own}]
        entries, mistakes = parse_entries(rest, TrainConfig, SHARED)
        for mistake in mistakes:
            yield {"search"}, mistake
        broken = dict[str, set[str]]()
        for values in corners(entries):
            for names, rule in Settings.contradictions(self.model_copy(update=values)):
                if names & values.keys() and rule not in broken:
                    broken[rule] = names
                    yield {"search", *names}, f"search: {rule}"

    @property
    def models_kept(self) -> int:
        """Return how many of the best trials keep their weights, including those to be combined."""
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
        searched: Mapping[str, Any] | None = None,
    ) -> TrainConfig:
        """Return the settings of one trial's run: the searched settings, its seed, and its options after given ones."""
        shared = {name: getattr(self, name) for name in Settings.model_fields}
        own = {"backbone": backbone, "lr": lr, "batch_size": batch_size, "seed": seed, "trackers": ()}
        own |= {**({} if head is None else {"head": head}), **(searched or {})}
        return TrainConfig(**{**shared, **own, "backbone_options": self.backbone_options + backbone_options})


def with_own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose `search` no longer has the entries of lr, batch_size and backbone: they set lr and so on.

    One that is set already, or cannot be read, stays: the check of the entries says why.
    """
    texts = as_texts(settings["search"])
    moved, rest = dict[str, Any](), list[Any]()
    for text in texts if isinstance(texts, list | tuple) else ():
        name, _, values = (part.strip() for part in str(text).partition("="))
        target = OWN_SETTINGS[name][0] if name in OWN_SETTINGS else None
        found = _own_values(name, values) if target is not None and target not in {*settings, *moved} else None
        if target is None or found is None:
            rest.append(text)
        else:
            moved[target] = found
    return {**settings, **moved, "search": tuple(rest) if isinstance(texts, list | tuple) else texts}


def _own_values(name: str, text: str) -> tuple[Any, ...] | None:
    """Read the values of one of `OWN_SETTINGS`; None where they cannot be read. A range of batch sizes is doubled."""
    try:
        if name == "backbone":
            return tuple(part.strip() for part in text.split(",") if part.strip()) or None
        if name == "lr":
            low, _, high = text.removesuffix(":log").partition(":")
            return float(low), float(high or low)
        if ":" not in text:
            return tuple(int(part) for part in text.split(","))
        first, last = (int(part) for part in text.removesuffix(":log").split(":"))
        return tuple(first * 2**power for power in range(32) if first * 2**power <= last) if first > 0 else None
    except ValueError:
        return None


def as_named_now(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under this version's names: earlier versions called augmenting or compiling always `auto`."""
    return {
        name: "always" if name in ("augment", "compile") and value == "auto" else value
        for name, value in settings.items()
    }


def as_made(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's settings under this version's names, with the fixed behaviour of earlier versions.

    Before `batch_norm` was a setting the statistics were always trained, on pretrained weights too.
    """
    starts_trained = bool(settings.get("pretrained") or settings.get("weights"))
    earlier = {"batch_norm": "train"} if starts_trained and "batch_norm" not in settings else {}
    return {**as_named_now(settings), **earlier}


def make(kind: type[C], settings: Mapping[str, Any], *, source: str = "settings", toml: bool = False) -> C:
    """Create settings of `kind`, or raise one ConfigError that lists every mistake, with `toml` in TOML's terms."""
    try:
        return kind(**settings)
    except ValidationError as error:
        raise ConfigError(_mistakes(kind, settings, error, toml), source=source) from None


def _mistakes(kind: type[Settings], settings: Mapping[str, Any], error: ValidationError, toml: bool) -> list[str]:
    """List all mistakes, including contradictions between settings that are valid on their own."""
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
