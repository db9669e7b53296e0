"""The trial store: the trials of a study, their progress, owners and ends.

It is Optuna's storage, written through Optuna's interface, so that its tools can read it. A trial is created in one
transaction, with its parameters and its owner; one without this mark is another program's, and is ignored. A trial
without an owner is paused; one whose owner is dead is an orphan, and a coordinator that finds it takes it over. The
result is written before the final state, so that after a kill in between the trial is still running and is ended
again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from automl_pt.study.pruning.base import TrialProgress
from automl_pt.study.quiet import quiet
from automl_pt.study.records import ProbeRecord, TrialRecord
from automl_pt.study.store.attributes import (
    BACKBONE,
    MACHINE,
    NOBODY,
    OUTCOME,
    OWNER,
    PROXY_SECONDS,
    RANKS,
    Outcome,
    is_ours,
    params_of,
    record,
    rival,
    trial_progress,
)
from automl_pt.study.store.backends import retrying

CRASHES, RANK_LOSS = "crashes", "rank_loss"
#: key, in what a study was created with, of its default batch-size candidates
OFFERED = "offered"
STUDY, BEST, JUDGEMENT, PROBES = "automl_pt", "best", "judgement", "probes"

EndState = Literal["COMPLETE", "PRUNED", "FAIL"]


class Presence(Protocol):
    """How the coordinators of one study coordinate."""

    owner: str
    #: whether others may write to the same study
    has_company: bool

    def join(self, storage: BaseStorage, study_id: int) -> None:
        """Join a study; later writes are attributed to this coordinator."""

    def allocation_lock(self) -> AbstractContextManager[None]:
        """Hold the exclusive right to start trials."""

    def is_alive(self, owner: str) -> bool:
        """Return whether the coordinator called `owner` is running."""


@dataclass
class TrialStore:
    """The trials of one study."""

    storage: BaseStorage
    name: str
    presence: Presence
    shown_url: str
    #: the backbone of the trials that name none, if the study has several by now
    unnamed: str | None = field(default=None, init=False)
    study_id: int = field(init=False)
    #: whether this process created the study
    is_new: bool = field(init=False)
    #: number of trials that other programs have added
    foreign_trials: int = field(default=0, init=False)
    #: the trials as last read or written by this process, cached because reading them for every decision would be slow
    _trials: dict[int, FrozenTrial] = field(init=False, repr=False)
    #: what the storage calls a trial, by number
    _ids: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    #: the study's attributes as last read, until they are written
    _attributes: dict[str, Any] | None = field(default=None, init=False, repr=False)
    _in_turn: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.study_id, self.is_new = _open_study(self.storage, self.name)
        self.presence.join(self.storage, self.study_id)
        self.refresh()

    def withdraw(self) -> None:
        """Delete the study if this process has just created it and may not start it."""
        if self.is_new and not self.storage.get_all_trials(self.study_id, deepcopy=False):
            self.storage.delete_study(self.study_id)

    def refresh(self) -> None:
        """Read the trials again; needed if other coordinators write too."""
        found = retrying(lambda: self.storage.get_all_trials(self.study_id, deepcopy=True))
        self._trials = {trial.number: trial for trial in found if is_ours(trial)}
        self.foreign_trials = len(found) - len(self._trials)

    @contextmanager
    def allocation_lock(self) -> Iterator[None]:
        """Hold the exclusive right to start trials and to publish, with others' trials up to date; not reentrant."""
        if self._in_turn:
            yield
            return
        with self.presence.allocation_lock():
            self._in_turn = True
            try:
                if self.presence.has_company:
                    self.refresh()
                yield
            finally:
                self._in_turn = False

    def trials(self) -> list[FrozenTrial]:
        """Return all our trials by number; numbers that another program has taken are missing."""
        return list(self._trials.values())

    def trial(self, number: int) -> FrozenTrial:
        """Return one of them."""
        return self._trials[number]

    def trial_progress(self, number: int) -> TrialProgress:
        """Return a trial's progress."""
        return trial_progress(self._trials[number])

    def progress_list(self) -> list[TrialProgress]:
        """Return the progress of every trial, for the pruning rule."""
        return [trial_progress(trial) for trial in self.trials()]

    def records(self) -> list[TrialRecord]:
        """Return all trials as plain values."""
        return [record(trial, self.unnamed) for trial in self.trials()]

    def params(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return a trial's parameters, including its backbone if the study has several."""
        return params_of(trial, self.unnamed)

    def rivals(self) -> list[str]:
        """Return the optimisers of the rivals that the study has."""
        return [str(own["optimizer"]) for trial in self.trials() if (own := rival(trial)) is not None]

    def add(
        self,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any] | None = None,
    ) -> int:
        """Create a trial of ours, with further attributes; return its number."""
        template = self._template(dict(params), dict(distributions), dict(attributes or {}))
        before, attempts = set(self._trials), count()

        def create() -> int:
            # a first attempt may have been written even though its answer was lost with the connection
            found = self.storage.get_all_trials(self.study_id, deepcopy=False) if next(attempts) else []
            ours = (one for one in found if one.user_attrs.get(OWNER) == self.presence.owner)
            written = [one.number for one in ours if one.number not in before]
            return (
                self._id(written[0])
                if written
                else self.storage.create_new_trial(self.study_id, template_trial=template)
            )

        trial_id = retrying(create)
        trial = copy.deepcopy(retrying(lambda: self.storage.get_trial(trial_id)))
        self._trials[trial.number], self._ids[trial.number] = trial, trial_id
        # numbers have no gaps but those that others have taken
        self.foreign_trials = max(self.foreign_trials, trial.number + 1 - len(self._trials))
        return trial.number

    def _id(self, number: int) -> int:
        """Return the storage's own number of a trial."""
        if number not in self._ids:
            find = self.storage.get_trial_id_from_study_id_trial_number
            self._ids[number] = retrying(lambda: find(self.study_id, number))
        return self._ids[number]

    def _template(
        self, params: dict[str, Any], distributions: dict[str, BaseDistribution], attributes: dict[str, Any]
    ) -> FrozenTrial:
        """Describe a new trial to Optuna, which requires the same choices for a parameter as it received first."""
        attributes[OWNER] = self.presence.owner
        told = (trial.distributions[BACKBONE] for trial in self.trials() if BACKBONE in trial.distributions)
        first = next(told, None)
        if isinstance(first, CategoricalDistribution) and BACKBONE in params:
            distributions[BACKBONE] = first
            if params[BACKBONE] not in first.choices:
                attributes[BACKBONE] = params.pop(BACKBONE)
                del distributions[BACKBONE]
        return create_trial(state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=attributes)

    def report(self, number: int, epoch: int, loss: float, rank_loss: float | None = None) -> None:
        """Store an epoch's validation loss, and its ranking loss; idempotent."""
        trial = self._trials[number]
        if rank_loss is not None:
            self.rank(number, epoch, rank_loss)
        retrying(lambda: self.storage.set_trial_intermediate_value(self._id(number), epoch, loss))
        trial.intermediate_values[epoch] = loss

    def rank(self, number: int, epoch: float, rank_loss: float) -> None:
        """Store a trial's ranking loss at a point; idempotent.

        For Optuna's tools it is stored as an attribute, and, after a proxy run, as the intermediate value of step 0, so
        that a trial pruned there appears in their plots.
        """
        trial = self._trials[number]
        self._set(number, RANK_LOSS, rank_loss)
        if epoch < 1:
            retrying(lambda: self.storage.set_trial_intermediate_value(self._id(number), 0, rank_loss))
            trial.intermediate_values[0] = rank_loss
        self._set(number, RANKS, {**self._trials[number].user_attrs.get(RANKS, {}), str(epoch): rank_loss})

    def report_proxy_run(self, number: int, epoch: float, rank_loss: float, seconds: Mapping[float, float]) -> None:
        """Store a trial's ranking loss after a proxy run of this many epochs, and the duration of each proxy run."""
        self._set(number, PROXY_SECONDS, {str(length): took for length, took in seconds.items()})
        self.rank(number, epoch, rank_loss)

    def own(self, number: int, owner: str) -> None:
        """Set the owner of a trial; NOBODY pauses it."""
        if self._trials[number].user_attrs[OWNER] != owner:
            self._set(number, OWNER, owner)

    def pause(self, number: int, paused: Outcome) -> None:
        """Release a trial, with its results so far."""
        self._set(number, OUTCOME, paused.to_json())
        self.own(number, NOBODY)

    def paused(self) -> list[FrozenTrial]:
        """Return the unfinished trials without an owner."""
        return [trial for trial in self._unfinished() if trial.user_attrs[OWNER] == NOBODY]

    def orphans(self) -> list[FrozenTrial]:
        """Return the unfinished trials whose owner is this coordinator, or is dead."""
        ours, is_alive = self.presence.owner, self.presence.is_alive
        owned = self.busy()
        return [trial for trial in owned if trial.user_attrs[OWNER] == ours or not is_alive(trial.user_attrs[OWNER])]

    def busy(self) -> list[FrozenTrial]:
        """Return the trials that a coordinator works on."""
        return [trial for trial in self._unfinished() if trial.user_attrs[OWNER] != NOBODY]

    def _unfinished(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials() if not trial.state.is_finished()]

    def count_crash(self, number: int) -> int:
        """Increment the crash count of a trial's process, and return it."""
        crashes = int(self._trials[number].user_attrs.get(CRASHES, 0)) + 1
        self._set(number, CRASHES, crashes)
        return crashes

    def set_machine(self, number: int, machine: str) -> None:
        """Record on what kind of machine a trial runs."""
        self._set(number, MACHINE, machine)

    def end(self, number: int, state: EndState, ended: Outcome) -> None:
        """End a trial finally."""
        self._set(number, OUTCOME, ended.to_json())
        trial = self._trials[number]
        cost = ended.value if ended.cost is None else ended.cost
        values = None if state == "FAIL" or ended.value is None or cost is None else [cost]
        with suppress(UpdateFinishedTrialError):  # a first attempt was written, but its answer lost with the connection
            retrying(lambda: self.storage.set_trial_state_values(self._id(number), TrialState[state], values))
        trial.state, trial.values = TrialState[state], values

    def _set(self, number: int, key: str, value: Any) -> None:
        trial = self._trials[number]
        retrying(lambda: self.storage.set_trial_user_attr(self._id(number), key, value))
        trial.user_attrs[key] = value

    def about(self) -> dict[str, Any]:
        """Return what the study was created with; empty for a new one."""
        return dict(self._attribute(STUDY) or {})

    def set_about(self, about: Mapping[str, Any]) -> None:
        """Store what the study is created with."""
        self._set_attribute(STUDY, dict(about))

    def best(self) -> list[int] | None:
        """Return the trial whose model was published last, and after how many of its epochs."""
        found = self._attribute(BEST)
        return None if found is None else list(found)

    def set_best(self, mark: list[int]) -> None:
        """Store which model is published."""
        self._set_attribute(BEST, mark)

    def judgement(self) -> dict[str, Any] | None:
        """Return the stored evaluation of the best trial from an earlier search."""
        found = self._attribute(JUDGEMENT)
        return None if found is None else dict(found)

    def set_judgement(self, judgement: Mapping[str, Any]) -> None:
        """Store the evaluation of the best trial."""
        self._set_attribute(JUDGEMENT, dict(judgement))

    def probes(self) -> list[ProbeRecord]:
        """Return the linear probes of the study, including failed ones."""
        return [ProbeRecord.from_dict(entry) for entry in self._attribute(PROBES) or ()]

    def add_probe(self, probe: ProbeRecord) -> None:
        """Store a probe's record, replacing that of the same number."""
        others = [one.to_dict() for one in self.probes() if one.number != probe.number]
        self._set_attribute(PROBES, [*others, probe.to_dict()])

    def models(self) -> list[TrialRecord]:
        """Return all that may have a model, as trials: the probes, then the trials."""
        return [*(probe.as_trial() for probe in self.probes()), *self.records()]

    def _attribute(self, key: str) -> Any:
        if self._attributes is None or self.presence.has_company:
            self._attributes = retrying(lambda: self.storage.get_study_user_attrs(self.study_id))
        return self._attributes.get(key)

    def _set_attribute(self, key: str, value: Any) -> None:
        self._attributes = None
        retrying(lambda: self.storage.set_study_user_attr(self.study_id, key, value))

    def study(self) -> optuna.Study:
        """Return Optuna's study object, which its pruners require."""
        return optuna.load_study(study_name=self.name, storage=self.storage)


def _open_study(storage: BaseStorage, name: str) -> tuple[int, bool]:
    """Return the study's number, and whether it was just created."""
    try:
        with quiet():
            return storage.create_new_study([StudyDirection.MINIMIZE], name), True
    except DuplicatedStudyError:
        return storage.get_study_id_from_name(name), False
