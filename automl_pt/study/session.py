"""An open study: its coordinator runs the trials, and this module concludes it with one model and its figures."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from automl_pt.core.errors import AutomlError, OutputError, StudyError
from automl_pt.core.files import write_json
from automl_pt.core.missing_model import of_trials
from automl_pt.core.text import counted
from automl_pt.runs.tracking import Trackers
from automl_pt.study.concluding import Steps
from automl_pt.study.coordinator import Coordinator
from automl_pt.study.events import Event, Finishing, Notice, StudyStarted
from automl_pt.study.executor.calls import returned
from automl_pt.study.executor.devices import devices_for
from automl_pt.study.extras.extras import OF_BEST, Ended, after_search
from automl_pt.study.model_store import ranked
from automl_pt.study.objective import SearchData
from automl_pt.study.records import Gain, ModelComparison, StudyResult, TrialRecord, title
from automl_pt.study.rivals import best_unsearched, gain_over
from automl_pt.study.tracking import StudyFollower
from automl_pt.study.views import FINISHING, Trials
from automl_pt.training.device import choose_device, choose_precision

#: seconds for running trials to save when a search is interrupted
GRACE = 5.0
#: seconds that a report takes besides the model's pass over the validation images; searches shorter than ten times
#: this reserve no time for one
REPORT_SECONDS = 4.0


@dataclass
class OpenStudy:
    """A study that is open and ready to run."""

    directory: Path
    storage: str
    steps: Steps
    coordinator: Coordinator
    search_data: SearchData
    #: notes for the user before the first trial
    said: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def started(self) -> StudyStarted:
        """Return the event that describes the start."""
        records = self.coordinator.trial_store.records()
        ended = sum(record.state in ("COMPLETE", "PRUNED", "FAIL") for record in records)
        engine = self.coordinator.engine
        config = self.steps.config
        places = [place.device for place in engine.places()]
        devices = places or devices_for(config.device, config.fixed_workers, config.trials)
        objective = self.steps.config.objective
        by = "" if objective == "val_loss" else f"; the best trial by {objective}"
        return StudyStarted(
            name=self.coordinator.trial_store.name,
            directory=str(self.directory),
            storage=self.storage,
            trials=self.coordinator.asked,
            finished=ended,
            workers=0 if engine.in_process else engine.slots,
            epochs=self.steps.config.epochs,
            images=self.search_data.counts(),
            classes=self.search_data.classes,
            image_sizes=self.search_data.image_sizes,
            device=", ".join(dict.fromkeys(devices)),
            searched=self.coordinator.space.text() + by,
            precision=choose_precision(config.precision, choose_device(devices[0])),
            timeout=self.steps.config.timeout,
            objective=objective,
        )

    def follower(self, trackers: Trackers | None) -> StudyFollower | None:
        """Return the object that passes this search's events to its trackers; None if there are none."""
        trial_store = self.coordinator.trial_store
        if trackers is None:
            return None
        own = self.coordinator.space.settings
        return StudyFollower(trackers, self.steps.config, trial_store.name, self.directory, trial_store.records, own)

    def grace(self, stop: Callable[[], int | None]) -> float:
        """Return the seconds for running trials to save: all remaining time, if there is a limit."""
        budget = self.coordinator.budget
        return GRACE if stop() is not None or budget.timeout is None else max(0.0, budget.left() + budget.reserve / 2)

    def end(self, stop: Callable[[], int | None]) -> Generator[Event, None, StudyResult]:
        """Do all that follows the trials, and return the result; what is being done is readable in `FINISHING`."""
        result = yield from self._conclude(stop)
        result = yield from self._make_extras(result, stop)
        return (yield from self._report(result, stop))

    def close(self) -> None:
        """End the executor."""
        (self.directory / FINISHING).unlink(missing_ok=True)
        self.coordinator.engine.close()

    def _finishing(self, text: str) -> Finishing:
        """Keep for other commands what is done now, which is no reason to end the search if it cannot be written."""
        if (self.directory / "study.json").exists():
            try:
                write_json(self.directory / FINISHING, {"doing": text})
            except OutputError as error:
                self._tell(f"other commands do not see what the search does after its trials: {error.in_a_line()}")
        return Finishing(text)

    def _conclude(self, stop: Callable[[], int | None]) -> Generator[Event, None, StudyResult]:
        """Evaluate the best trial, remove files that are no longer needed, and return the result."""
        coordinator, model_store = self.coordinator, self.coordinator.model_store
        records = coordinator.trial_store.records()
        models = coordinator.trial_store.models()
        best, runner_up = [*ranked(models)[:2], None, None][:2]
        comparison, figures, gain = None, None, None
        if stop() is None and best is not None:
            comparison, figures = yield from self._judge(best, runner_up)
        if stop() is None and best is not None:
            gain = yield from self._gain(best, records, comparison)
        for note in coordinator.plateau.notes if coordinator.plateau is not None else ():
            self._tell(note)
        if not (self.directory / "study.json").exists():
            self.notes.append("files of the study were removed while it ran: it cannot be resumed or reported")
        model_store.tidy(models, self.steps.config.models_kept)
        result = StudyResult(
            name=coordinator.trial_store.name,
            directory=str(self.directory),
            storage=self.storage,
            model=str(model_store.model) if best is not None else None,
            best=best,
            runner_up=runner_up,
            comparison=comparison,
            test=figures,
            trials=Trials(records),
            probes=tuple(coordinator.trial_store.probes()),
            objective=self.steps.config.objective,
            stopped=coordinator.stopped,
            seconds=coordinator.budget.seconds(),
            estimate_error=coordinator.budget.estimate_error(),
            signal=stop(),
            notes=tuple(self.notes),
            slots=coordinator.engine.slots,
            busy_seconds=coordinator.budget.busy,
            gain=gain,
        )
        write_json(self.directory / "result.json", result.to_dict())
        _require_some_success(records, coordinator.trial_store.name)
        return result

    def _report(self, result: StudyResult, stop: Callable[[], int | None]) -> Generator[Event, None, StudyResult]:
        """Write the page if there is time; a reason against it becomes a note in the result.

        No error of the page may end the search, because its model is complete.
        """
        if self.steps.objective.report is None or not self.steps.config.report or result.signal is not None:
            return result
        budget = self.coordinator.budget
        if budget.timeout is not None and budget.timeout - budget.seconds() < REPORT_SECONDS:
            return _noted(result, f"no time remained for report.html; {_writes_it(result)}")
        yield self._finishing("writing report.html")
        try:
            path = returned(self.steps.report())
        except AutomlError as error:
            return _noted(result, f"report.html was not written: {error.in_a_line()}")
        if path is None:
            result = replace(result, signal=stop())
            return _noted(result, f"report.html was not written: interrupted; {_writes_it(result)}")
        return replace(result, report=str(path))

    def _make_extras(self, result: StudyResult, stop: Callable[[], int | None]) -> Generator[Event, None, StudyResult]:
        """Make the requested extras of the ended trials, in the remaining time."""
        model_store, budget = self.coordinator.model_store, self.coordinator.budget
        if self.steps.objective.makers is None or result.best is None or not self.steps.config.extras:
            return result
        of_trials = [name for name in self.steps.config.extras if name not in OF_BEST]
        if result.best.number < 0 and of_trials:
            what = ", ".join(of_trials)
            yield Notice(f"{what}: made of the trials, although the best model is the probe, which is not among them")
        limit = float("inf") if budget.timeout is None else budget.timeout - budget.end
        held = tuple(trial for trial in ranked(result.trials) if model_store.holds(trial.number))

        def done() -> bool:
            return stop() is not None or budget.seconds() > limit

        ended = Ended(self.steps.config, self.directory, held, self.steps.plugins, done, result.best)
        made = yield from after_search(ended, self.steps.makers(), self._finishing)
        result = replace(result, made=made, seconds=budget.seconds(), signal=stop() or result.signal)
        write_json(self.directory / "result.json", result.to_dict())
        return result

    def _test(self) -> tuple[dict[str, float] | None, bool]:
        """Evaluate the finished model on the test split; return its figures, and False if an error prevented it.

        Its images are read here for the first time: they may have changed, be unreadable, or exceed the memory. No such
        error ends the search, because its model is complete.
        """
        try:
            return returned(self.steps.test(self.coordinator.model_store.model), self._tell), True
        except AutomlError as error:
            self.notes.append(f"the test split was not measured: {error.in_a_line()}")
            return None, False

    def _tell(self, text: str) -> None:
        """Record each distinct note once."""
        if text not in self.notes:
            self.notes.append(text)

    def _judge(
        self, best: TrialRecord, runner_up: TrialRecord | None
    ) -> Generator[Event, None, tuple[ModelComparison | None, dict[str, float] | None]]:
        """Compare and test the finished model once; a study opened again returns the stored results.

        Only a test that failed with an error is repeated.
        """
        trial_store = self.coordinator.trial_store
        pair = [[record.number, record.epochs] for record in (best, runner_up) if record is not None]
        found = trial_store.judgement()
        if found and found["pair"] == pair:
            comparison = ModelComparison.from_dict(found["comparison"]) if found["comparison"] else None
            if found.get("tested", True):
                return comparison, found["test"]
        else:
            comparison = yield from self._compare(best, runner_up)
        if self.search_data.test_images:
            yield self._finishing(f"measuring the model on {counted(self.search_data.test_images, 'test image')}")
        figures, is_tested = self._test()
        if self.steps.unwanted():
            self._tell("interrupted before the model was compared and tested; the same command does both")
            return comparison, figures
        plain = asdict(comparison) if comparison is not None else None
        trial_store.set_judgement({"pair": pair, "comparison": plain, "test": figures, "tested": is_tested})
        return comparison, figures

    def _gain(
        self, best: TrialRecord, records: Sequence[TrialRecord], comparison: ModelComparison | None
    ) -> Generator[Event, None, Gain | None]:
        """Measure what the search gained over the best trial that needs none, and keep it with the study."""
        over = best_unsearched(records)
        if over is None or len(records) < 2:
            return None
        trial_store = self.coordinator.trial_store
        found = trial_store.judgement() or {}
        pair = [best.number, best.epochs, over.number, over.epochs]
        if found.get("gain") and found.get("gain_pair") == pair:
            return Gain.from_dict(found["gain"])
        if comparison is None or comparison.runner_up != over.number or comparison.best != best.number:
            searched = best.number > 0 and best.unsearched is None
            comparison = (yield from self._compare(best, over)) if searched else None
        gain = gain_over(best, over, None if comparison is None else comparison.standard_error)
        if not self.steps.unwanted() and found:
            trial_store.set_judgement({**found, "gain": asdict(gain), "gain_pair": pair})
        return gain

    def _compare(
        self, best: TrialRecord, runner_up: TrialRecord | None
    ) -> Generator[Event, None, ModelComparison | None]:
        """Compare the two best trials if both are complete and the second one's weights still exist."""
        if runner_up is None or not runner_up.state == best.state == "COMPLETE":
            return None
        if not self.coordinator.model_store.holds(runner_up.number):
            return None
        yield self._finishing(f"comparing {title(best.number)} with {title(runner_up.number)}")
        try:
            found: ModelComparison | None = returned(self.steps.compare(best, runner_up), self._tell)
            return found
        except AutomlError as error:  # for example because a plugin changed after the trial
            self.notes.append(f"the two best trials were not compared: {error.in_a_line()}")
            return None


def _noted(result: StudyResult, note: str) -> StudyResult:
    return replace(result, notes=(*result.notes, note))


def _writes_it(result: StudyResult) -> str:
    return f"`automl-pt report {result.directory} --html FILE` writes it"


def _require_some_success(records: Sequence[TrialRecord], name: str) -> None:
    """Raise StudyError if every trial has failed, because then the fault is not in their parameters."""
    if records and all(record.state == "FAIL" for record in records):
        absence = of_trials([(record.state, record.reason) for record in records], "trials")
        raise StudyError(f"no model: {absence.what}", given=f"study {name}", remedy=absence.remedy)
