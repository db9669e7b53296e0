"""The records of a study's trials as plain values, for reports, listings and results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from automl_pt.config import OWN_SETTINGS
from automl_pt.core.text import one_line, printable
from automl_pt.study.views import StudyViews, Trials


def in_order(names: Iterable[str]) -> list[str]:
    """Return searched settings in the order in which a person reads them: those that every search has come first."""
    first = list(OWN_SETTINGS)
    return sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name))


def title(number: int) -> str:
    """Return the name of a trial, or of a probe, whose number is below 0, for messages."""
    return f"trial {number}" if number >= 0 else "the probe" if number == -1 else f"probe {-number}"


def chosen_by(objective: str, metrics: Mapping[str, float]) -> str:
    """Return the value of an objective other than the loss as text, such as "macro_f1 0.8312"; else nothing."""
    value = metrics.get(objective)
    return "" if objective == "val_loss" or value is None else f"{objective} {value:.4f}"


#: fields of a trial that its one line shows besides its settings
_SHOWN = ("number", "state", "epochs", "seconds", "reason")


@dataclass(frozen=True)
class TrialRecord:
    """One trial in its stored state.

    `state` is Optuna's word: RUNNING (a paused trial too), COMPLETE, PRUNED, FAIL or WAITING. `value` is the validation
    loss of the weights the trial kept, and None where it kept none. `epochs` counts the epochs done, `seconds` the time
    spent in them. `reason` says why the trial ended (`completed`, `patience`, `diverged`, `pruned`, or `failed: ...`),
    or what it is doing (`running`, `paused`). `losses` maps an epoch to its validation loss. `ranks` maps the points,
    in epochs, at which the pruning rule compared it to the loss by which it did; a fraction lies within the first
    epoch, and a trial dropped there has this figure alone. `machine` says where it ran, where an executor says so.
    `metrics` are those of the weights it kept, by name; a
    record from before a metric existed lacks it. `cost` orders trials, the lower the better: the value of the study's
    objective, negative where a higher value is better, and by default the validation loss. `rival` are the settings of
    a rival: an optimiser and what it publishes.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    epochs: int
    seconds: float
    reason: str
    losses: dict[int, float]
    ranks: dict[float, float] = field(default_factory=dict)
    machine: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    cost: float | None = None
    rival: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.cost is None:
            object.__setattr__(self, "cost", self.value)

    def __repr__(self) -> str:
        settings = {name: value for name, value in self.params.items() if name not in _SHOWN}
        own = {name: getattr(self, name) for name in _SHOWN}
        found = {"val_loss": self.value, "val_accuracy": self.metrics.get("accuracy")}
        return one_line("TrialRecord", {"number": own.pop("number"), **settings, **found, **own})

    @property
    def ranked_at(self) -> float | None:
        """Return the point, in epochs, at which it was compared last; None before the first."""
        return max(self.ranks, default=None)

    @property
    def rank_loss(self) -> float | None:
        """Return its ranking loss at that point."""
        return None if self.ranked_at is None else self.ranks[self.ranked_at]

    @property
    def epochs_done(self) -> float:
        """Return its progress in epochs: a fraction if it ended within the first."""
        return max(self.epochs, self.ranked_at or 0)

    @property
    def title(self) -> str:
        """Return its name for messages."""
        return title(self.number)

    @property
    def unsearched(self) -> str | None:
        """Say what the trial is where no search is needed for it: the default, or a rival; None for any other."""
        if self.rival is not None:
            return f"the rival {printable(self.rival.get('optimizer'))}"
        return "the default" if self.number == 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON; epochs become strings, because JSON keys are strings."""
        plain = {name: {str(key): loss for key, loss in getattr(self, name).items()} for name in ("losses", "ranks")}
        return {**asdict(self), **plain, "rank_loss": self.rank_loss, "ranked_at": self.ranked_at}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> TrialRecord:
        """Make a record again of what `to_dict` returned."""
        given = {field.name: plain[field.name] for field in fields(cls) if field.name in plain}
        losses = {int(epoch): loss for epoch, loss in plain["losses"].items()}
        return cls(**{**given, "losses": losses, "ranks": {float(at): loss for at, loss in plain["ranks"].items()}})


def disagreement(records: Sequence[TrialRecord], best: TrialRecord, objective: str) -> list[str]:
    """Say where the objective and the validation loss choose differently: another trial, or another epoch."""
    if objective == "val_loss" or best.value is None:
        return []
    said = []
    others = [one for one in records if one.value is not None and one.state == best.state and one.reason != "diverged"]
    lowest = min(others, key=lambda one: (one.value or 0.0, one.number), default=best)
    if lowest.value is not None and lowest.value < best.value:
        said.append(
            f"The validation loss would have chosen {lowest.title}: its loss is {lowest.value:.4f}, and "
            f"{chosen_by(objective, lowest.metrics) or 'its ' + objective + ' is not known'}; {best.title}, chosen by "
            f"{objective}, has a loss of {best.value:.4f}, and {chosen_by(objective, best.metrics)}."
        )
    epoch = min(best.losses, key=lambda one: best.losses[one], default=None)
    if epoch is not None and best.losses[epoch] < best.value:
        said.append(
            f"Of {best.title}'s epochs the loss is lowest after epoch {epoch}, {best.losses[epoch]:.4f}; the weights "
            f"chosen by {objective} have {best.value:.4f}."
        )
    return said


@dataclass(frozen=True)
class ProbeRecord:
    """A linear probe: a head fitted to the features of a frozen backbone before the first trial. `number` is below 0.

    `c` is the inverse of the penalty, chosen by the validation loss `value`; `tried` lists (c, loss). `seconds` and
    `cpu_seconds` are its whole cost, including the pass over the images, of which `computed` went through the network.
    `milliseconds` is the network's time for a single image. With a `failure` there is no probe.
    """

    number: int
    backbone: str
    value: float | None = None
    accuracy: float | None = None
    c: float | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    computed: int = 0
    parameters: int | None = None
    milliseconds: float | None = None
    tried: tuple[tuple[float, float], ...] = ()
    failure: str | None = None
    #: the other metrics of validation by name
    metrics: dict[str, float] = field(default_factory=dict)
    #: as a trial's
    cost: float | None = None

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ProbeRecord:
        """Build a record from `probe.json` or the study; unknown fields are from another version, and ignored."""
        renamed = {"value": values.get("val_loss"), "accuracy": values.get("val_accuracy"), **values}
        known = {name: renamed[name] for name in ProbeRecord.__dataclass_fields__ if name in renamed}
        return ProbeRecord(**{**known, "tried": tuple((c, loss) for c, loss in values.get("tried", ()))})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        shown = ("number", "backbone", "value", "accuracy", "c", "seconds", "failure")
        return one_line("ProbeRecord", {name: getattr(self, name) for name in shown})

    def cost_of_use(self) -> str:
        """Return the network's size and speed, such as " (4.7 M parameters, 12.3 ms an image)"; empty if unknown."""
        size = [] if self.parameters is None else [f"{self.parameters / 1e6:.1f} M parameters"]
        speed = [] if self.milliseconds is None else [f"{self.milliseconds:.1f} ms an image"]
        return f" ({', '.join([*size, *speed])})" if size or speed else ""

    def as_trial(self) -> TrialRecord:
        """Return the probe as a trial, to be ranked among them."""
        state = "FAIL" if self.failure is not None else "COMPLETE"
        params = {"backbone": self.backbone, "C": self.c}
        reason = "probe" if self.failure is None else f"failed: {self.failure}"
        own = {"loss": self.value, "accuracy": self.accuracy, **self.metrics}
        metrics = {name: value for name, value in own.items() if value is not None}
        kept: dict[str, Any] = {"metrics": metrics, "cost": self.cost}
        return TrialRecord(self.number, state, params, self.value, 1, self.seconds, reason, {}, **kept)


@dataclass(frozen=True)
class ModelComparison:
    """Whether the best model is better than the runner-up by more than the validation set's noise.

    `difference` is runner-up minus best, in mean validation loss per image; `standard_error` is that of the paired
    per-image differences. `inside_noise` is true if the difference is under two standard errors. The accuracies are
    None in records of earlier versions; the scaled losses, each at a temperature fitted to that model on these images,
    are there where the runner-up has the higher accuracy.
    """

    best: int
    runner_up: int
    difference: float
    standard_error: float
    images: int
    inside_noise: bool
    best_accuracy: float | None = None
    runner_up_accuracy: float | None = None
    best_scaled_loss: float | None = None
    runner_up_scaled_loss: float | None = None

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ModelComparison:
        """Make a comparison of what the study says; unknown fields are of another version."""
        return cls(**{name: plain[name] for name in cls.__dataclass_fields__ if name in plain})

    def disagreement(self) -> str | None:
        """Say that the accuracy orders the two the other way round than the loss; None where it does not."""
        if self.best_accuracy is None or self.runner_up_accuracy is None:
            return None
        if self.runner_up_accuracy <= self.best_accuracy:
            return None
        more = f"{100 * self.runner_up_accuracy:.1f} % against {100 * self.best_accuracy:.1f} %"
        text = f"the validation loss decides, but {title(self.runner_up)} is right on more images ({more})"
        if self.best_scaled_loss is None or self.runner_up_scaled_loss is None:
            return text
        order = "stays" if self.best_scaled_loss <= self.runner_up_scaled_loss else "changes"
        losses = f"{self.best_scaled_loss:.4f} and {self.runner_up_scaled_loss:.4f}"
        return f"{text}; with a temperature fitted to each the losses are {losses}, so that the order by loss {order}"


@dataclass(frozen=True)
class Gain:
    """What a search gained over the best trial that needs none: `over`, which `what` describes.

    `difference` is the loss of `over` minus that of the best model: of the validation images or, where `over` was
    pruned, the loss by which trials were compared `at` so many epochs. `standard_error` is that of the paired losses of
    the images; None where the weights of one were not kept. `gained_nothing` if the best model needs no search.
    """

    best: int
    over: int
    what: str
    gained_nothing: bool = False
    difference: float | None = None
    standard_error: float | None = None
    at: float | None = None

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Gain:
        """Make it of what the study stores; unknown fields are of another version."""
        return cls(**{name: plain[name] for name in cls.__dataclass_fields__ if name in plain})

    def sentence(self) -> str:
        """Say it for a person."""
        which = f"{self.what}, {title(self.over)}"
        if self.gained_nothing:
            return f"No trial is better than {self.what}, which needs no search: that is the best model."
        if self.difference is None:
            return f"What the search gained over {which}, is not known, because the two were never compared."
        if self.difference <= 0:
            gained = f"By validation loss the search gained nothing over {which}: it is {-self.difference:.4f} behind"
        else:
            kind = "validation loss" if self.at is None else "loss"
            gained = f"The search gained {self.difference:.4f} in {kind} over {which}, the best of what needs no search"
        if self.at is not None:
            return f"{gained}: by the loss after {self.at:.2g} epochs, where that one was pruned."
        if self.standard_error is None:
            return f"{gained}, by the losses alone, because the weights of one were not kept."
        noise = "statistically clear" if abs(self.difference) >= 2 * self.standard_error else "a statistical tie"
        return f"{gained}, with a standard error of {self.standard_error:.4f}: {noise}."


@dataclass(frozen=True, repr=False)
class StudyResult(StudyViews):
    """The result of a search. A notebook shows it as a table with curves.

    `model` is the finished model's directory, None while no trial has kept weights. `stopped` says why the search
    ended: `trials` (all were run), `timeout`, `flat` (a plateau) or `interrupted`, with the number of the `signal`.
    `test` holds the figures (`loss`, `accuracy`) on the test split, measured once at the end, if there is one.
    `estimate_error` is the estimate of the total time at half of the work, divided by the actual time, minus one.
    """

    name: str
    directory: str
    storage: str
    model: str | None
    best: TrialRecord | None
    runner_up: TrialRecord | None
    comparison: ModelComparison | None
    test: dict[str, float] | None
    trials: Trials
    stopped: str
    seconds: float
    estimate_error: float | None = None
    #: notes for the user on how the search ended
    notes: tuple[str, ...] = ()
    signal: int | None = None
    #: trials at a time, and the seconds of all epochs together, in this search
    slots: int = 1
    busy_seconds: float = 0.0
    #: the HTML page; None if none was requested, or time or the disk did not allow it
    report: str | None = None
    #: the extras, by name (`refit`, `ensemble`, `average`): `model` and figures
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: the linear probes of the start of the search
    probes: tuple[ProbeRecord, ...] = ()
    #: the setting `objective`: what chose the best
    objective: str = "val_loss"
    #: what the search gained over the default and the rivals
    gain: Gain | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        records = {
            "best": self.best.to_dict() if self.best else None,
            "runner_up": self.runner_up.to_dict() if self.runner_up else None,
            "trials": [record.to_dict() for record in self.trials],
        }
        return {**asdict(self), **records}
