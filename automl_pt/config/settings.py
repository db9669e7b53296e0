"""The settings that a run and a search share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    field_validator,
    model_validator,
)

from automl_pt.config.fields import (
    HERE,
    Augment,
    BatchNorm,
    Channels,
    ClassWeights,
    Count,
    CountOrZero,
    Flag,
    Fraction,
    NotNegative,
    Precision,
    Rate,
    Schedule,
    Seed,
    StopRule,
)
from automl_pt.core.search_entries import Registered, registered

#: the backbone's name that stands for those whose pretrained weights are on this machine
AUTO = "auto"
#: limit of the unaugmented epochs at the end of a run (docs/evidence/recipe.md)
CLEAN_EPOCHS = 3

#: the settings that `automl_pt.data.find.find` takes
DATA_SOURCE = (
    "dataset",
    "root",
    "download",
    "image_column",
    "label_column",
    "split_column",
    "group_column",
    "group_by",
    "follow_links",
)


class Settings(BaseModel):
    """The settings that single runs and searches share: data, training, device."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=False)

    dataset: str = Field(description="a folder, archive or table of labelled images, or a registered dataset's name")
    root: str | None = Field(None, description="folder of a named dataset's files")
    download: Annotated[Flag, HERE] = Field(False, description="allow a named dataset to download its files to --root")
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

    channels: Channels = Field(
        None,
        description="channels of the images that a network is given: auto, 1, 3 or another number; auto: RGB for "
        "photographs, else what the images have, with a note",
    )
    depth: Literal["auto", "8", "16", "float"] = Field(
        "auto", description="bits of a channel; auto: 8 for photographs, else what all the images have"
    )
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
        1.0,
        description="factor on the learning rate per parameter group away from the head; 1: equal rates; from weights "
        "0.8 gained 1 to 2 points on one set and cost half a point on another at the default rate",
    )
    head_lr_factor: Rate = Field(
        1.0, description="factor on the learning rate of the head; from weights 3 and 10 cost accuracy"
    )
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

    device: Annotated[str, HERE] = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda[:n] or mps"
    )
    precision: Precision = Field("auto", description="number format of the forward pass; auto: what is fast here")
    checkpoint_minutes: Rate = Field(10.0, description="minutes between checkpoints within a long epoch")
    deterministic: Flag = Field(False, description="ask PyTorch for deterministic CUDA kernels")
    cuda_graph: Flag = Field(True, description="on CUDA, record the training step once and replay it")
    compile: Literal["always", "never"] = Field(
        "never", description="on CUDA, 'always' compiles the network for full batches, which takes about a minute"
    )
    scale_lr: Flag = Field(True, description="with several processes, multiply the learning rate by their number")
    threads: Annotated[Count | None, HERE] = Field(
        None, description="CPU threads of one run; default: the cores this process may use"
    )
    plugins: tuple[str, ...] = Field((), description="a plugin file to load")
    trackers: tuple[str, ...] = Field(
        (), description="a plugin that receives the events of the run or search, such as tensorboard; default: none"
    )
    cache_dir: Annotated[str | None, HERE] = Field(
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

    def named_values(self) -> Iterator[tuple[str, str]]:
        """Yield what the settings name, registered or not, each as (kind, name)."""
        yield from self.registered_names()
        yield "dataset", self.dataset
        yield from (("augmentation", str(item.get("name"))) for item in self.transforms)
        yield "metric", self.objective

    @property
    def data_source(self) -> dict[str, Any]:
        """Return the settings that say which images there are, and how their files are read."""
        return {name: getattr(self, name) for name in DATA_SOURCE}

    @property
    def starts_from_weights(self) -> bool:
        """Return whether training starts from trained weights."""
        return bool(self.pretrained) or self.weights is not None

    def trains_on_features(self, processes: int = 1) -> bool:
        """Return whether a run of so many processes trains its head on features, if its network allows it."""
        frozen = self.freeze == "backbone" and self.features != "computed"
        return frozen and self.starts_from_weights and processes == 1 and self.micro_batch_size is None

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


def as_named_now(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under this version's names: earlier versions called augmenting or compiling always `auto`."""
    return {
        name: "always" if name in ("augment", "compile") and value == "auto" else value
        for name, value in settings.items()
    }
