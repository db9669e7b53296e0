"""The settings of a search."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from automl_pt.config.entries import OWN_SETTINGS, with_own_settings
from automl_pt.config.fields import HERE, Count, CountOrZero, Flag, Folds, Rate, Several
from automl_pt.config.settings import AUTO, Settings
from automl_pt.config.train import TrainConfig
from automl_pt.core.search_entries import SearchEntry, as_texts, corners, parse_entries

#: default learning rates of a search that trains a whole network from weights
FINE_TUNING_LR = (3e-4, 3e-2)


def _shared(why: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), why)


#: fields of a run in which the trials of a study cannot differ, and why; they may differ in any other
SHARED = {
    **_shared("all trials of a study train and validate on the same images", "dataset root download val_fraction"),
    **_shared("all trials of a study train and validate on the same images", "test_fraction max_bad follow_links"),
    **_shared("all trials of a study train and validate on the same images", "image_column label_column split_column"),
    **_shared("all trials of a study train and validate on the same images", "group_column group_by channels depth"),
    **_shared("trials of other lengths cannot be compared", "epochs patience stop_rule min_delta keep"),
    **_shared("all trials of a study are ranked by one objective", "objective"),
    **_shared("the probe and the range of learning rates suit one start", "pretrained weights freeze head features"),
    **_shared("each trial has a seed of its own, made from the study's", "seed"),
    **_shared("memory and speed of a trial are measured once for all", "image_size micro_batch_size precision"),
    **_shared("it says how or where a run is computed, not what", "device threads deterministic cuda_graph compile"),
    **_shared("it says how or where a run is computed, not what", "checkpoint_minutes cache_dir plugins trackers"),
    **_shared("it says how or where a run is computed, not what", "scale_lr"),
}
#: the extras in their order, the slowest last, and the setting that asks for each
EXTRA_SETTINGS = {
    "earlier": "warm_start",
    "ensemble": "ensemble",
    "average": "average",
    "refit": "refit",
    "folds": "folds",
}


class SearchConfig(Settings):
    """Settings of a study."""

    backbones: tuple[str, ...] = Field(
        ("resnet18",),
        min_length=1,
        description="backbones to search among, also separated by commas, of which the linear probes choose; 'auto': "
        "those whose pretrained weights are on this machine",
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
    rivals: tuple[str, ...] | None = Field(
        None,
        description="optimizers, separated by commas, whose published settings compete untuned, each as a trial beside "
        "--trials, by the same rule; the report says what the search gained over the best of them and of trial 0; "
        "default: adamw, where whole networks train and most trials end after a proxy run; none: none",
    )
    trials: Count = Field(16, description="number of trials in the study")
    timeout: Rate | None = Field(None, description="time limit in seconds, after which the search ends")
    name: Annotated[str | None, HERE] = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="the study's name; default: made from the dataset's",
    )
    warm_start: str | None = Field(
        None,
        description="an earlier study, by name or folder: a new study takes its split, its ranges and other settings "
        "that are not given, tries its best settings early, and is compared with its model; default: the finished "
        "study of the same name, once images were added",
    )
    warm_weights: Flag = Field(
        False, description="with a warm start, train from the weights of the earlier study's model, too"
    )
    storage: Annotated[str | None, HERE] = Field(
        None, description="an Optuna storage URL; default: SQLite in the study's folder"
    )
    sampler: str = Field("tpe", description="what chooses the next trial's settings: tpe, halton, random or a plugin's")
    pruner: str = Field(
        "rungs", description="which trials continue: rungs, an Optuna pruner's name, a plugin's, or none for all"
    )
    engine: Annotated[str | None, HERE] = Field(
        None,
        min_length=1,
        description="where trials run: processes (the default), inline for this process, ray for a cluster, "
        "or an executor of a plugin",
    )
    ray_address: Annotated[str | None, HERE] = Field(
        None,
        min_length=1,
        description="with engine ray: the cluster's HOST:PORT; default: RAY_ADDRESS, or the cluster that runs here",
    )
    gpus_per_trial: Annotated[Rate | None, HERE] = Field(
        None, description="with engine ray: GPUs of each trial, such as 1, or 0.5 for two trials on one; default: none"
    )
    cpus_per_trial: Annotated[Count | None, HERE] = Field(
        None, description="with engine ray: CPU cores of each trial; default: 1"
    )
    workers: Annotated[CountOrZero | None, HERE] = Field(
        None,
        description="trials at a time; default: one per GPU, or per CPU core, and one where trials train a head on "
        "features, in this process if the backbone is one; 0 runs them in this process",
    )
    trials_per_gpu: Annotated[str | None, HERE] = Field(
        None,
        pattern=r"^(auto|[1-9][0-9]?)$",
        description="trials that share each GPU: a number, or auto to measure while trials run whether 2, 4 or 8 do "
        "more together, with NVIDIA's MPS; default: one",
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
    folds: Folds | None = Field(
        None,
        description="at the end, train the winner's settings once for each of this many folds of the training and "
        "validation images, whole groups in one fold: the accuracy with an interval, and model-folds, which averages "
        "the probabilities of the folds' models",
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
    def entries(self) -> tuple[SearchEntry, ...]:
        """Return what is searched besides learning rate, batch size and backbone."""
        return parse_entries(self.search, TrainConfig, SHARED)[0]

    def tried(self, name: str) -> tuple[Any, ...]:
        """Return the values of a setting that trials have: those of its entry, or the one that is set."""
        entry = next((entry for entry in self.entries if entry.name == name), None)
        return super().tried(name) if entry is None else entry.ends

    def registered_names(self) -> Iterator[tuple[str, str]]:
        """Yield what the settings name, the rivals after the others."""
        yield from super().registered_names()
        yield from (("optimizer", name) for name in self.rivals or ())

    def named_values(self) -> Iterator[tuple[str, str]]:
        """Yield what the settings name, with backbones, sampler and pruner."""
        yield from super().named_values()
        yield from (("backbone", name) for name in self.backbones)
        yield "sampler", self.sampler
        yield "pruner", self.pruner

    @field_validator("rivals", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """Read names separated by commas, or the word none; a name that is given twice counts once."""
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
            return value
        stripped = tuple(dict.fromkeys(name.strip() for name in names))
        return () if stripped == ("none",) else stripped

    @field_validator("trials_per_gpu", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value

    @field_validator("backbones", mode="before")
    @classmethod
    def _separated(cls, value: Any) -> Any:
        """Read names separated by commas, in a text or in each of several texts."""
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return value
        return tuple(part.strip() for name in names for part in name.split(",") if part.strip() or not name)

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
        if self.trials_per_gpu is not None and (self.workers is not None or self.engine not in (None, "processes")):
            rule = "trials_per_gpu says how many worker processes there are: leave out workers and engine"
            yield {"trials_per_gpu", "workers", "engine"}, f"{rule}, got workers {self.workers}, engine {self.engine!r}"
        if AUTO in self.backbones and (self.pretrained is False or self.weights is not None or not self.probe):
            rule = "backbone auto compares pretrained backbones by their probes: leave out weights and --from-scratch"
            yield {"backbones", "pretrained", "weights", "probe"}, f"{rule}, and leave the probe on"
        if self.lr[0] > self.lr[1]:
            yield {"lr"}, f"lr must go from low to high, got {self.lr[0]:g}:{self.lr[1]:g}"
        yield from self._search_mistakes()
        if self.average and self.pretrained is False and not self.weights:
            rule = "average needs pretrained or weights: only trials that started from the same weights can be averaged"
            yield {"average", "pretrained", "weights"}, rule

        if self.warm_weights and (self.weights is not None or self.pretrained is not None) and not self.warm_start:
            rule = "give warm_weights, or pretrained or weights: each states where the weights come from"
            yield {"warm_weights", "pretrained", "weights"}, rule

    def _of_ray(self) -> Iterator[tuple[set[str], str]]:
        given = [
            name for name in ("ray_address", "gpus_per_trial", "cpus_per_trial") if getattr(self, name) is not None
        ]
        if given and self.engine != "ray":
            rule = f"{', '.join(given)}: belongs to engine 'ray', got engine {self.engine!r}"
            yield {"engine", *given}, rule
        if self.gpus_per_trial is not None and self.gpus_per_trial > 1:
            rule = "gpus_per_trial is at most 1, because a trial trains on one GPU"
            yield {"gpus_per_trial"}, f"{rule}, got {self.gpus_per_trial:g}"
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
    def combined(self) -> int:
        """Return how many trials an ensemble or an average combines; 0 without either."""
        return max(self.ensemble or 0, self.average or 0)

    def images_to_learn(self, train: int, val: int) -> int:
        """Count the images to be trained on or evaluated after the trials; a refit runs to its end."""
        refit = self.epochs * (train + val) if self.refit else 0
        refit += (self.folds or 0) * self.epochs * (train + val)
        return refit + (self.average or 0) * (train + val) + 3 * (self.ensemble or 0) * val

    @property
    def extras(self) -> tuple[str, ...]:
        """Return the requested extras in their order, the slowest last."""
        return tuple(name for name, setting in EXTRA_SETTINGS.items() if getattr(self, setting))

    @property
    def wants_probe(self) -> bool:
        """Return whether a search starts with probes: the default if it starts from weights."""
        return self.probe and self.starts_from_weights

    @property
    def fixed_workers(self) -> int | None:
        """Return the number of workers where it does not depend on the machine.

        Trials that train a head on features have one, because starting another process costs more than they do.
        """
        return self.workers or (1 if self.trains_on_features() else None)

    @property
    def models_kept(self) -> int:
        """Return how many of the best trials keep their weights, including those to be combined."""
        return max(self.keep_models, self.combined)

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
