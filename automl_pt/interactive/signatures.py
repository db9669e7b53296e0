"""`train` and `search` with every setting as a keyword, for completion, help and type checkers.

`python docs/make_signatures.py` generates this file from the settings. A test fails when it is out of date. The bodies
are empty, because the decorator calls the functions of `calls.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.interactive import calls

if TYPE_CHECKING:
    from automl_pt.plugins.manager import PluginFiles, Plugins
    from automl_pt.study.events import Event
    from automl_pt.study.records import StudyResult
    from automl_pt.training.result import EpochResult


@calls.declares(calls.train, TrainConfig)
def train(  # type: ignore[empty-body]  # only declared here
    dataset: str | Path,
    *,
    output: str | Path | None = None,
    plugins: Plugins | PluginFiles | None = None,
    show: bool | None = None,
    root: str | Path | None = None,
    download: bool = False,
    val_fraction: float = 0.2,
    test_fraction: float = 0.0,
    max_bad: float = 0.0,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    group_by: str | None = None,
    follow_links: bool = False,
    epochs: int = 5,
    objective: str = "val_loss",
    patience: int = 3,
    stop_rule: Literal["consecutive", "best"] = "consecutive",
    min_delta: float = 0.0,
    keep: Literal["best", "last"] = "best",
    seed: int = 1,
    channels: int | None = None,
    depth: Literal["auto", "8", "16", "float"] = "auto",
    image_size: int | None = None,
    augment: Literal["early", "always", "none"] = "early",
    augmentation: str = "shift-flip",
    transforms: Sequence[Mapping[str, Any]] = (),
    pretrained: bool | None = None,
    weights: str | Path | None = None,
    freeze: Literal["none", "backbone"] = "none",
    freeze_groups: int = 0,
    head: Literal["new", "probe"] = "new",
    features: Literal["cached", "mirrored", "computed"] = "cached",
    layer_decay: float = 1.0,
    head_lr_factor: float = 1.0,
    batch_norm: Literal["auto", "keep", "train"] = "auto",
    backbone_options: Sequence[str] = (),
    optimizer: str = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 0.0001,
    weight_decay_on: Literal["all", "weights"] = "all",
    schedule: Literal["constant", "step", "polynomial", "cosine"] = "cosine",
    warmup_epochs: int = 0,
    label_smoothing: float = 0.0,
    clip_grad_norm: float | None = None,
    class_weights: Literal["none", "balanced"] | Sequence[tuple[str, float]] | Mapping[str, float] = "none",
    sampling: Literal["each", "balanced"] = "each",
    micro_batch_size: int | None = None,
    ema_decay: float = 0.0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    checkpoint_minutes: float = 10.0,
    deterministic: bool = False,
    cuda_graph: bool = True,
    compile: Literal["always", "never"] = "never",
    scale_lr: bool = True,
    threads: int | None = None,
    trackers: Sequence[str] = (),
    cache_dir: str | Path | None = None,
    backbone: str = "resnet18",
    batch_size: int = 16,
    lr: float = 0.001,
) -> Iterator[EpochResult]:
    """Train one model with fixed parameters, and yield each epoch's result.

    The first result's notes begin with those on the data: what was guessed, and which files are ignored.
    The run directory `output` (default: `runs/DATASET-BACKBONE`) is a model directory too, for `load_model`; the same
    call again resumes the run. `plugins` are plugin files, as for `--plugin`, or the result of `load_plugins`. `show`
    draws the epochs in a notebook, and prints them elsewhere; by default only a notebook shows them.
    Raises ConfigError, DatasetError and the other errors of `automl_pt.core.errors` before the first epoch. A run that
    diverges raises nothing: the `reason` of its last result is "diverged", and if that is the first epoch's, the run
    directory holds no model, which `load_model` then reports.
    """


@calls.declares(calls.search, SearchConfig)
def search(  # type: ignore[empty-body]  # only declared here
    dataset: str | Path,
    *,
    plugins: Plugins | PluginFiles | None = None,
    on_event: Callable[[Event], None] | None = None,
    show: bool | None = None,
    root: str | Path | None = None,
    download: bool = False,
    val_fraction: float = 0.2,
    test_fraction: float = 0.0,
    max_bad: float = 0.0,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    group_by: str | None = None,
    follow_links: bool = False,
    epochs: int = 5,
    objective: str = "val_loss",
    patience: int = 3,
    stop_rule: Literal["consecutive", "best"] = "consecutive",
    min_delta: float = 0.0,
    keep: Literal["best", "last"] = "best",
    seed: int = 1,
    channels: int | None = None,
    depth: Literal["auto", "8", "16", "float"] = "auto",
    image_size: int | None = None,
    augment: Literal["early", "always", "none"] = "early",
    augmentation: str = "shift-flip",
    transforms: Sequence[Mapping[str, Any]] = (),
    pretrained: bool | None = None,
    weights: str | Path | None = None,
    freeze: Literal["none", "backbone"] = "none",
    freeze_groups: int = 0,
    head: Literal["new", "probe"] = "new",
    features: Literal["cached", "mirrored", "computed"] = "cached",
    layer_decay: float = 1.0,
    head_lr_factor: float = 1.0,
    batch_norm: Literal["auto", "keep", "train"] = "auto",
    backbone_options: Sequence[str] = (),
    optimizer: str = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 0.0001,
    weight_decay_on: Literal["all", "weights"] = "all",
    schedule: Literal["constant", "step", "polynomial", "cosine"] = "cosine",
    warmup_epochs: int = 0,
    label_smoothing: float = 0.0,
    clip_grad_norm: float | None = None,
    class_weights: Literal["none", "balanced"] | Sequence[tuple[str, float]] | Mapping[str, float] = "none",
    sampling: Literal["each", "balanced"] = "each",
    micro_batch_size: int | None = None,
    ema_decay: float = 0.0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    checkpoint_minutes: float = 10.0,
    deterministic: bool = False,
    cuda_graph: bool = True,
    compile: Literal["always", "never"] = "never",
    scale_lr: bool = True,
    threads: int | None = None,
    trackers: Sequence[str] = (),
    cache_dir: str | Path | None = None,
    backbones: Sequence[str] = ("resnet18",),
    lr: tuple[float, float] = (0.0001, 1.0),
    batch_sizes: Sequence[int] | None = None,
    search: Sequence[str] | str | Mapping[str, Any] = (),
    rivals: Sequence[str] | str | None = None,
    trials: int = 16,
    timeout: float | None = None,
    name: str | None = None,
    warm_start: str | None = None,
    warm_weights: bool = False,
    storage: str | None = None,
    sampler: str = "tpe",
    pruner: str = "rungs",
    engine: str | None = None,
    ray_address: str | None = None,
    gpus_per_trial: float | None = None,
    cpus_per_trial: int | None = None,
    workers: int | None = None,
    trials_per_gpu: str | None = None,
    trial_timeout: float | None = None,
    keep_models: int = 1,
    probe: bool = True,
    max_params: int | str | None = None,
    max_ms: float | None = None,
    report: bool = True,
    refit: bool = False,
    ensemble: int | None = None,
    average: int | None = None,
    folds: int | None = None,
    stop_when_flat: bool = False,
) -> StudyResult:
    """Search learning rate and batch size on `dataset`; return the result, with the finished model's folder.

    The study is kept in `studies/NAME`, and the same call resumes it. `plugins` are plugin files, as for `--plugin`, or
    the result of `load_plugins`; plugins registered by hand exist in this process only, so trials then run in it.
    `show` draws the trials in a notebook, and prints what the command prints elsewhere; by default only a notebook
    shows them. `on_event` receives every event. Raises the errors of `automl_pt.core.errors`; StudyError if every trial
    has failed. If no trial kept weights, because the time was over or all diverged, the result's `model` and `best` are
    None.
    """
