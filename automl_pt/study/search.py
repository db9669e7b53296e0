"""A search, from a dataset's name to one finished model.

`steps` is the whole of it: open the study, run its trials, tell what happens. It can be killed at any moment; the same
call goes on.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from automl_pt import __version__
from automl_pt.config import SearchConfig, make
from automl_pt.errors import AutomlError, StudyError
from automl_pt.files import make_folder, read_json, write_json
from automl_pt.locks import locked
from automl_pt.plugins import Plugins, load_plugins
from automl_pt.study import resume
from automl_pt.study.after import Ended, after_search, asked, images_to_learn
from automl_pt.study.budget import Budget
from automl_pt.study.coordinator import Coordinator
from automl_pt.study.engine.base import Engine
from automl_pt.study.engine.inline import InlineEngine
from automl_pt.study.engine.local import LocalEngine
from automl_pt.study.engine.places import devices_for, memory_for, threads_for
from automl_pt.study.events import Event, Finished, Notice, StudyStarted
from automl_pt.study.flat import Flatness
from automl_pt.study.ledger import OFFERED, Ledger, Presence
from automl_pt.study.offered import Offer, offer
from automl_pt.study.presence import Alone, Among
from automl_pt.study.pruning.optuna_rules import make_rule
from automl_pt.study.records import Comparison, StudyResult, TrialRecord
from automl_pt.study.shelf import Shelf, ranked
from automl_pt.study.space import make_space
from automl_pt.study.storage import close_storage, default_url, is_shared, lock_file, open_storage, server_engine, shown
from automl_pt.study.storage_errors import translated
from automl_pt.study.subject import Material, Subject
from automl_pt.study.tracking import StudyFollower, follow_study
from automl_pt.tracking import Trackers

#: seconds in which running trials may save when a search is interrupted
GRACE = 5.0
#: seconds that a report takes besides running the model on the validation images; shorter searches than ten times
#: this have none unless time is left
REPORT_SECONDS = 4.0


def search(
    dataset: str, *, plugins: Plugins | None = None, on_event: Callable[[Event], None] | None = None, **settings: Any
) -> StudyResult:
    """Search learning rate and batch size on `dataset`; return what was found, the finished model's folder with it.

    `settings` are the fields of SearchConfig, which are the options of `automl-pt search`. The study is kept in
    `studies/NAME`, and the same call goes on with it. `plugins` registered by hand are known to this process only, so
    trials then run in it. Raises the errors of `automl_pt.errors`; StudyError when every trial has failed.
    """
    config = make(SearchConfig, {"dataset": dataset, **settings})
    return run_search(config, Path("studies") / study_name(config), plugins=plugins, on_event=on_event)


def run_search(
    config: SearchConfig,
    directory: Path,
    *,
    plugins: Plugins | None = None,
    on_event: Callable[[Event], None] | None = None,
    stop: Callable[[], int | None] = lambda: None,
) -> StudyResult:
    """Run `steps` to the end and return the result."""
    for event in steps(config, directory, plugins=plugins, stop=stop):
        if on_event is not None:
            on_event(event)
        if isinstance(event, Finished):
            return event.result
    raise AssertionError("Finished is always the last event")


def study_name(config: SearchConfig) -> str:
    """Return the study's name: the one given, or one made of the dataset's, safe as a folder's name."""
    if config.name is not None:
        return config.name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(os.path.abspath(config.dataset)).name).strip(".-")
    return plain[:100] or "study"


def steps(
    config: SearchConfig,
    directory: Path,
    *,
    plugins: Plugins | None = None,
    subject: Subject | None = None,
    stop: Callable[[], int | None] = lambda: None,
) -> Iterator[Event]:
    """Run the study in `directory`, yielding events; the last is Finished, which holds the result.

    `stop` is asked often; once it returns a signal's number all trials save and the search ends. Leaving the iterator
    does the same. Raises StudyError when the study there was made with other data or settings.
    """
    subject = subject or _images()
    config, notices = _with_plugin_files(config, plugins), list[str]()
    trackers = _trackers(config, plugins, notices)
    directory = make_folder(Path(directory).absolute())
    with ExitStack() as stack:
        study = _open(config, directory, subject, plugins, stop, stack)
        yield from follow_study(_events(study, plugins, stop), study.follower(trackers), notices)


def _events(study: OpenStudy, plugins: Plugins | None, stop: Callable[[], int | None]) -> Iterator[Event]:
    yield study.started()
    for text in study.said:
        yield Notice(text)
    with translated(study.storage):
        try:
            yield from study.coordinator.run()
            yield from study.coordinator.leave(study.grace(stop))
        finally:
            study.coordinator.engine.close()
        result = study.conclude(plugins, stop())
        result = yield from study.make_more(result, plugins, stop)
        yield Finished(study.report(result, plugins))


def _trackers(config: SearchConfig, plugins: Plugins | None, notices: list[str]) -> Trackers | None:
    """Look the trackers up, before anything is done; no search asks for any unless told to."""
    if not config.trackers:
        return None
    return Trackers(plugins or load_plugins(config.plugins), config.trackers, report=notices.append)


@dataclass
class OpenStudy:
    """A study that is open and ready to run."""

    config: SearchConfig
    directory: Path
    storage: str
    subject: Subject
    coordinator: Coordinator
    #: what the user should read before the first trial
    said: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def started(self) -> StudyStarted:
        """Tell what begins."""
        records = self.coordinator.ledger.records()
        ended = sum(record.state in ("COMPLETE", "PRUNED", "FAIL") for record in records)
        engine = self.coordinator.engine
        return StudyStarted(
            name=self.coordinator.ledger.name,
            directory=str(self.directory),
            storage=self.storage,
            trials=self.config.trials,
            finished=ended,
            workers=0 if isinstance(engine, InlineEngine) else engine.slots,
            epochs=self.config.epochs,
        )

    def follower(self, trackers: Trackers | None) -> StudyFollower | None:
        """Return what turns this search's events into what its trackers are told; None without any."""
        ledger = self.coordinator.ledger
        if trackers is None:
            return None
        return StudyFollower(trackers, self.config, ledger.name, self.directory, ledger.records)

    def grace(self, stop: Callable[[], int | None]) -> float:
        """Return the seconds in which running trials may save: all that is left of the time, where there is a limit."""
        budget = self.coordinator.budget
        return GRACE if stop() is not None or budget.timeout is None else max(0.0, budget.left() + budget.reserve / 2)

    def conclude(self, plugins: Plugins | None, signal: int | None) -> StudyResult:
        """Judge the best trial, remove what nobody needs any more, and sum up."""
        coordinator, shelf = self.coordinator, self.coordinator.shelf
        records = coordinator.ledger.records()
        _require_some_success(records, coordinator.ledger.name)
        best, runner_up = [*ranked(records)[:2], None, None][:2]
        comparison, figures = self._judge(best, runner_up, plugins) if signal is None and best else (None, None)
        shelf.tidy(records, self.config.models_kept)
        result = StudyResult(
            name=coordinator.ledger.name,
            directory=str(self.directory),
            storage=self.storage,
            model=str(shelf.model) if best is not None else None,
            best=best,
            runner_up=runner_up,
            comparison=comparison,
            test=figures,
            trials=tuple(records),
            stopped=coordinator.stopped,
            seconds=coordinator.budget.seconds(),
            estimate_error=coordinator.budget.estimate_error(),
            signal=signal,
            notes=tuple(self.notes),
            slots=coordinator.engine.slots,
            busy_seconds=coordinator.budget.busy,
        )
        write_json(self.directory / "result.json", result.to_dict())
        return result

    def report(self, result: StudyResult, plugins: Plugins | None) -> StudyResult:
        """Write the page, where there is time; whatever keeps it from being written is a note in the result.

        The search is over and its model stands, so that nothing a page meets may end it with an error.
        """
        if self.subject.report is None or not self.config.report or result.signal is not None:
            return result
        budget = self.coordinator.budget
        if budget.timeout is not None and budget.timeout - budget.seconds() < REPORT_SECONDS:
            note = f"no time was left for report.html; `automl-pt report {result.directory} --html FILE` writes it"
            return replace(result, notes=(*result.notes, note))
        try:
            path = self.subject.report(self.config, self.directory, plugins)
        except Exception as error:
            reason = error.given if isinstance(error, AutomlError) else error
            note = f"report.html was not written: {type(error).__name__}: {reason}"
            return replace(result, notes=(*result.notes, note))
        return replace(result, report=str(path))

    def make_more(
        self, result: StudyResult, plugins: Plugins | None, stop: Callable[[], int | None]
    ) -> Generator[Event, None, StudyResult]:
        """Make of the ended trials what is asked for beside the best one's model, in the time that is left."""
        shelf, budget = self.coordinator.shelf, self.coordinator.budget
        if self.subject.makers is None or result.best is None or not asked(self.config):
            return result
        limit = float("inf") if budget.timeout is None else budget.timeout - budget.end
        held = tuple(trial for trial in ranked(result.trials) if shelf.holds(trial.number))

        def done() -> bool:
            return stop() is not None or budget.seconds() > limit

        made = yield from after_search(Ended(self.config, self.directory, held, plugins, done), self.subject.makers())
        result = replace(result, made=made, seconds=budget.seconds(), signal=stop() or result.signal)
        write_json(self.directory / "result.json", result.to_dict())
        return result

    def _test(self, plugins: Plugins | None) -> dict[str, float] | None:
        """Measure the finished model on the test split; say so where its images are not those of the manifest any more.

        The search is over and its model stands, so that this is no reason to end with an error.
        """
        try:
            model = self.coordinator.shelf.model
            return self.subject.test(self.config, model, self.directory / "manifest.json", plugins)
        except StudyError as error:
            self.notes.append(f"the test split was not measured: {error.given}")
            return None

    def _judge(
        self, best: TrialRecord, runner_up: TrialRecord | None, plugins: Plugins | None
    ) -> tuple[Comparison | None, dict[str, float] | None]:
        """Compare and test the finished model, once: the same study opened again is told what was found then."""
        ledger, shelf = self.coordinator.ledger, self.coordinator.shelf
        pair = [[record.number, record.epochs] for record in (best, runner_up) if record is not None]
        found = ledger.judgement()
        if found and found["pair"] == pair:
            return Comparison(**found["comparison"]) if found["comparison"] else None, found["test"]
        comparison = None
        if runner_up is not None and runner_up.state == best.state == "COMPLETE" and shelf.holds(runner_up.number):
            comparison = self.subject.compare(self.config, best, runner_up, self.directory, plugins)
        figures = self._test(plugins)
        plain = asdict(comparison) if comparison is not None else None
        ledger.set_judgement({"pair": pair, "comparison": plain, "test": figures})
        return comparison, figures


def _open(
    config: SearchConfig,
    directory: Path,
    subject: Subject,
    plugins: Plugins | None,
    stop: Callable[[], int | None],
    stack: ExitStack,
) -> OpenStudy:
    url = config.storage or default_url(directory)
    if not is_shared(url):
        _be_alone(config, url, directory, stack)
    budget = Budget(config.timeout)
    before = _plugins_before(config, directory, plugins)
    material = subject.prepare(config, directory / "manifest.json", plugins)
    looks = 2 + (subject.report is not None and config.report)
    budget.images = (material.train_images, looks * material.val_images + material.test_images)
    if looks > 2 and config.timeout is not None and config.timeout >= 10 * REPORT_SECONDS:
        budget.report = REPORT_SECONDS
    budget.later = images_to_learn(config, material.train_images, material.val_images)
    ledger = _open_ledger(config, url, directory, material, stack)
    engine = _make_engine(config, directory, subject, material, plugins, lambda: stop() is not None or budget.is_over())
    budget.slots = engine.slots
    offered = _offer(config, material, ledger, engine)
    rule = make_rule(config.pruner, config.epochs, material.train_images, ledger.study)
    resume.require_same_rungs(ledger.standings(), rule.levels, config.trials, where=str(directory))
    coordinator = Coordinator(
        config=config,
        ledger=ledger,
        shelf=Shelf(directory, config.models_kept, subject.publish),
        engine=engine,
        rule=rule,
        space=make_space(config, material.train_images, material.dimensions, offered.sizes),
        budget=budget,
        stop=stop,
        flatness=_flatness(config, directory, subject, plugins) if config.stop_when_flat else None,
    )
    notes = resume.other_versions(before, material.plugins)
    said = (*material.notes, *([offered.notice] if offered.notice is not None else []))
    return OpenStudy(config, directory, shown(url), subject, coordinator, said, notes)


def _be_alone(config: SearchConfig, url: str, directory: Path, stack: ExitStack) -> None:
    """Lock the folder, and the study in its storage: that may be named from another folder, too."""
    stack.enter_context(locked(directory / ".lock", wait=False))
    beside = lock_file(url, config.name or directory.name) if config.storage else None
    if beside is not None:
        stack.enter_context(locked(beside, wait=False))


def _offer(config: SearchConfig, material: Material, ledger: Ledger, engine: Engine) -> Offer:
    """Choose the batch sizes; those that nobody asked for are kept with the study, which offers the same ever after."""
    free = memory_for(devices_for(config)[: engine.slots]) if material.steps else 0
    with ledger.turn():
        offered = offer(config, material.train_images, material.steps, free, ledger.about().get(OFFERED, ()))
        if config.batch_sizes is None:
            ledger.set_about({**ledger.about(), OFFERED: list(offered.sizes)})
    return offered


def _plugins_before(config: SearchConfig, directory: Path, plugins: Plugins | None) -> list[dict[str, Any]]:
    """Return the plugins that the study in `directory` was made with; raise StudyError where one is not here."""
    path = directory / "study.json"
    used: list[dict[str, Any]] = read_json(path).get("plugins", []) if path.exists() else []
    if used:
        resume.require_plugins(used, plugins or load_plugins(config.plugins), where=str(directory))
    return used


def _flatness(config: SearchConfig, directory: Path, subject: Subject, plugins: Plugins | None) -> Flatness:
    def noise(best: TrialRecord, second: TrialRecord) -> float | None:
        if not all((directory / "trials" / str(record.number) / "model.json").exists() for record in (best, second)):
            return None
        comparison = subject.compare(config, best, second, directory, plugins)
        return None if comparison is None else comparison.standard_error

    return Flatness(noise)


def _open_ledger(config: SearchConfig, url: str, directory: Path, material: Material, stack: ExitStack) -> Ledger:
    name = config.name or directory.name
    storage = open_storage(url)
    stack.callback(close_storage, storage)
    presence: Presence = Alone()
    if is_shared(url):
        presence = Among(server_engine(url), name)
        stack.callback(presence.close)
    ledger = Ledger(storage, name, presence, shown(url))
    wanted = {**resume.describe(config, material.fingerprint, __version__), **resume.describe_material(material)}
    with ledger.turn():
        found = ledger.about()
        if found:
            resume.require_comparable(found, wanted, where=str(directory))
        else:
            resume.require_own(ledger.trials(), name, where=shown(url))
        ledger.set_about({**found, **wanted, "version": found.get("version", __version__)})
    where = shown(url) if config.storage else "study.db"
    asked = config.model_dump(mode="json", exclude={"storage"})  # which may hold a password
    write_json(directory / "study.json", {"name": name, "storage": where, "plugins": wanted["plugins"], "asked": asked})
    return ledger


def _make_engine(
    config: SearchConfig,
    directory: Path,
    subject: Subject,
    material: Material,
    plugins: Plugins | None,
    should_stop: Callable[[], bool],
) -> Engine:
    if config.workers == 0 or (plugins is not None and _registered_by_hand(plugins)):
        return InlineEngine(material.make, should_stop)
    devices = devices_for(config)
    threads = threads_for(config, len(devices))
    return LocalEngine(subject.make, devices, threads=threads, logs=directory / "logs", limit=config.trial_timeout)


def _with_plugin_files(config: SearchConfig, plugins: Plugins | None) -> SearchConfig:
    """Let worker processes load the plugin files that this process was given."""
    files = plugins.files if plugins is not None else ()
    return config.model_copy(update={"plugins": tuple(dict.fromkeys([*config.plugins, *files]))}) if files else config


def _registered_by_hand(plugins: Plugins) -> bool:
    return {name for name, _ in plugins.manager.list_name_plugin()} > {plugin.name for plugin in plugins.loaded}


def _require_some_success(records: Sequence[TrialRecord], name: str) -> None:
    """Raise StudyError when every trial has failed: then the fault is not in their parameters."""
    if records and all(record.state == "FAIL" for record in records):
        reason, count = Counter(record.reason for record in records).most_common(1)[0]
        raise StudyError(
            "at least one trial must succeed",
            given=f"study {name}: all {len(records)} trials failed, {count} of them with: {reason}",
            remedy="run one of them by itself with `automl-pt train` and `--traceback` to see where it fails",
        )


def _images() -> Subject:
    from automl_pt.study.classifier import IMAGES

    return IMAGES
