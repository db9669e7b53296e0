"""Opens a study: checks what is stored of it, and sets up executor, pruning rule and trial store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from automl_pt.config import SearchConfig
from automl_pt.core import __version__
from automl_pt.core.errors import AutomlError, StudyError
from automl_pt.core.files import write_json
from automl_pt.core.locks import locked
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.plugins.optimizers import PUBLISHED
from automl_pt.plugins.pruners import Pruner
from automl_pt.plugins.samplers import Sampler
from automl_pt.runs.directory import Cleanup
from automl_pt.study import resume
from automl_pt.study.budget import Budget
from automl_pt.study.concluding import Steps
from automl_pt.study.coordinator import Coordinator
from automl_pt.study.executor.base import Engine, ExecutorJob
from automl_pt.study.executor.calls import returned
from automl_pt.study.executor.choose import make_engine
from automl_pt.study.linear_probes import LinearProbes
from automl_pt.study.model_store import ModelStore
from automl_pt.study.objective import Objective, Proof, SearchData
from automl_pt.study.plateau import Plateau
from automl_pt.study.pruning.base import Rule
from automl_pt.study.pruning.optuna_rules import make_rule
from automl_pt.study.records import TrialRecord
from automl_pt.study.rivals import default_rivals, make_rivals, trusting
from automl_pt.study.session import REPORT_SECONDS, OpenStudy
from automl_pt.study.space.batch_sizes import BatchSizeCandidates, batch_size_candidates
from automl_pt.study.space.next_trial import chosen_sampler, early_settings, with_early_trial
from automl_pt.study.space.points import few_images, settle
from automl_pt.study.space.space import Space, make_space, optimizer_spaces, require_batch_sizes
from automl_pt.study.store.backends import (
    close_storage,
    default_url,
    files_of,
    is_shared,
    lock_file,
    open_storage,
    server_engine,
    shown,
    storage_note,
)
from automl_pt.study.store.coordination import SharedCoordinator, SingleCoordinator
from automl_pt.study.store.study_files import plugins_of
from automl_pt.study.store.trials import OFFERED, Presence, TrialStore

#: files that a search creates in its folder before it starts
PRELIMINARY = ("manifest.json", ".lock", "logs")

#: note on a search whose trials train only the head
ON_FEATURES = (
    "trials train the head on features computed once from unaugmented images: no shifts, and mirror images only with "
    "--features mirrored; an epoch takes milliseconds, so that no trial is pruned"
)


def open_study(
    config: SearchConfig,
    directory: Path,
    objective: Objective,
    plugins: Plugins | None,
    stop: Callable[[], int | None],
    stack: ExitStack,
    since: float | None = None,
) -> OpenStudy:
    """Open the study in `directory`, or create it; `stack` releases what it holds, such as locks.

    Its time counts from `since`, a value of `time.monotonic`, or from now.
    Raises StudyError if it exists with other data or settings, or another process works on it.
    """
    url = storage_url(config, directory)
    if not is_shared(url):
        _require_single_coordinator(config, url, directory, stack)
    before = plugins_before(config, directory, plugins)
    registered = plugins or load_plugins(config.plugins)
    found = objective.prepare(config, directory / "manifest.json", plugins)
    search_data = replace(found, optimizers=optimizer_spaces(config, registered))
    budget = _budget(config, objective, search_data, since)
    must_stop = partial(_must_stop, stop, budget)
    engine = make_engine(ExecutorJob(config, objective.make, search_data.make, directory, must_stop), plugins)
    stack.callback(engine.close)
    proof = search_data.prove(engine, must_stop) if search_data.prove is not None else Proof()
    trial_store = _open_trial_store(config, url, directory, stack)
    config, search_data, kept, has_grown = _agree(trial_store, config, directory, search_data)
    config, repeats = _settled(config, _space(config, search_data, None))
    offered = _batch_size_candidates(config, search_data, proof, trial_store, engine, has_grown)
    space = _space(config, search_data, offered.sizes)
    rule = _rule(config, search_data, trial_store, registered, directory)
    rivals, on_rivals = make_rivals(config, space, registered, default_rivals(config, rule, trial_store))
    early, on_early = early_settings(trial_store, search_data.early, space)
    steps = Steps(objective, config, directory, plugins, engine, lambda: stop() is not None)
    coordinator = Coordinator(
        config=config,
        trial_store=trial_store,
        model_store=(model_store := ModelStore(directory, objective.publish)),
        engine=engine,
        rule=trusting(rule, trial_store, rivals),
        space=space,
        budget=budget,
        stop=stop,
        suggest=with_early_trial(chosen_sampler(config.sampler, registered), early),
        linear_probes=_linear_probes(config, objective, trial_store, model_store, engine),
        rivals=rivals,
        plateau=_plateau(steps) if config.stop_when_flat else None,
    )
    _note_searched(trial_store, coordinator)
    write_json(directory / "study.json", kept)  # last, when nothing can be wrong any more: it says that a study is here
    said = _said(config, search_data, proof, offered, (repeats, on_early, *on_rivals, storage_note(url)))
    others = resume.other_versions(before, search_data.plugins)
    return OpenStudy(directory, shown(url), steps, coordinator, search_data, said, others)


def _settled(config: SearchConfig, space: Space) -> tuple[SearchConfig, str | None]:
    """Return the settings with as many trials as the space needs, and a note on them."""
    trials, note = settle(config.trials, space, repeats=config.combined > 0)
    return config.model_copy(update={"trials": trials}), note


def _linear_probes(
    config: SearchConfig, objective: Objective, trial_store: TrialStore, model_store: ModelStore, engine: Engine
) -> LinearProbes | None:
    wanted = config.wants_probe and objective.probes
    return LinearProbes(config, trial_store, model_store, engine) if wanted else None


def _said(
    config: SearchConfig,
    search_data: SearchData,
    proof: Proof,
    offered: BatchSizeCandidates,
    further: Sequence[str | None],
) -> tuple[str, ...]:
    """Return the notes for the user before the first trial."""
    few = few_images(config.batch_sizes, config.epochs, search_data.train_images, offered.sizes)
    notices = (ON_FEATURES if config.trains_on_features() else None, offered.notice, few, *further)
    return (*search_data.notes, *proof.notes, *(note for note in notices if note is not None))


def _space(config: SearchConfig, search_data: SearchData, offered: Sequence[int] | None) -> Space:
    images, extra = search_data.train_images, search_data.dimensions
    return make_space(config, images, extra, offered, search_data.default_lr, search_data.optimizers)


def _rule(
    config: SearchConfig,
    search_data: SearchData,
    trial_store: TrialStore,
    plugins: Plugins,
    directory: Path,
) -> Rule:
    """Make the pruner's rule; raise StudyError where trials were compared at other points than it compares them."""
    pruner = "none" if config.trains_on_features() else config.pruner
    shape, from_weights = (config.epochs, search_data.train_images), config.starts_from_weights
    rule = make_rule(pruner, *shape, trial_store.study, plugins, from_weights=from_weights)
    first = trial_store.about().get("first_rung")
    trials = config.trials + len(trial_store.rivals())
    resume.require_same_rungs(
        trial_store.progress_list(), rule.rung_resources, trials, where=str(directory), first_rung=first
    )
    return rule


def _note_searched(trial_store: TrialStore, coordinator: Coordinator) -> None:
    """Keep with the study, in words, what is searched: for its report."""
    with trial_store.allocation_lock():
        trial_store.set_about({**trial_store.about(), "searched": coordinator.space.text()})


def _must_stop(stop: Callable[[], int | None], budget: Budget) -> bool:
    return stop() is not None or budget.is_over()


def _budget(config: SearchConfig, objective: Objective, search_data: SearchData, since: float | None) -> Budget:
    """Return the search's time, with the reserve for the end."""
    budget = Budget(config.timeout, since=since)
    looks = 2 + (objective.report is not None and config.report)
    budget.images = (search_data.train_images, looks * search_data.val_images + search_data.test_images)
    if looks > 2 and config.timeout is not None and config.timeout >= 10 * REPORT_SECONDS:
        budget.report = REPORT_SECONDS
    budget.later = config.images_to_learn(search_data.train_images, search_data.val_images)
    return budget


def storage_url(config: SearchConfig, directory: Path) -> str:
    """Return the URL of the study's storage."""
    return config.storage or default_url(directory)


def untouched(config: SearchConfig, directory: Path, plugins: Plugins) -> Cleanup:
    """Return what leaves no trace of a search that is refused before it starts.

    Raises StorageError for a storage that cannot be named, UnknownNameError for a sampler or pruner.
    """
    plugins.named(Sampler, config.sampler)
    plugins.named(Pruner, config.pruner)
    beside = files_of(storage_url(config, directory), config.name or directory.name)
    return Cleanup(directory, mark="study.json", names=PRELIMINARY, beside=beside)


def _require_single_coordinator(config: SearchConfig, url: str, directory: Path, stack: ExitStack) -> None:
    """Lock the folder, and the study in its storage, because another folder may use the same storage."""
    stack.enter_context(locked(directory / ".lock", wait=False))
    beside = lock_file(url, config.name or directory.name)
    if beside is not None:
        stack.enter_context(locked(beside, wait=False))


def _batch_size_candidates(
    config: SearchConfig,
    search_data: SearchData,
    proof: Proof,
    trial_store: TrialStore,
    engine: Engine,
    has_grown: bool,
) -> BatchSizeCandidates:
    """Choose the batch sizes; default ones are stored with the study, which keeps them."""
    free = min((place.memory for place in engine.places()), default=0) if proof.steps else 0
    with trial_store.allocation_lock():
        known = trial_store.about().get(OFFERED, ())
        offered = batch_size_candidates(
            config.batch_sizes,
            config.epochs,
            search_data.train_images,
            proof.steps,
            free,
            known,
            has_grown=has_grown,
        )
        if config.batch_sizes is None:
            trial_store.set_about({**trial_store.about(), OFFERED: list(offered.sizes)})
    return offered


def plugins_before(config: SearchConfig, directory: Path, plugins: Plugins | None) -> list[dict[str, Any]]:
    """Return the plugins that the study in `directory` was created with; raise StudyError if one is missing."""
    used = plugins_of(directory / "study.json")
    if used:
        resume.require_plugins(used, plugins or load_plugins(config.plugins), where=str(directory))
    return used


def _plateau(steps: Steps) -> Plateau:
    trials, notes = steps.directory / "trials", list[str]()

    def noise(best: TrialRecord, second: TrialRecord) -> float | None:
        if not all((trials / str(record.number) / "model.json").exists() for record in (best, second)):
            return None
        try:
            comparison = returned(steps.compare(best, second))
        except AutomlError as error:  # costs the search only this measurement
            notes.append(f"the search could not be checked for a plateau: {error.in_a_line()}")
            return None
        return None if comparison is None else float(comparison.standard_error)

    return Plateau(noise, notes)


def _open_trial_store(config: SearchConfig, url: str, directory: Path, stack: ExitStack) -> TrialStore:
    name = config.name or directory.name
    storage = open_storage(url)
    stack.callback(close_storage, storage)
    presence: Presence = SingleCoordinator()
    if is_shared(url):
        presence = SharedCoordinator(server_engine(url), name)
        stack.callback(presence.close)
    return TrialStore(storage, name, presence, shown(url))


def _agree(
    trial_store: TrialStore, config: SearchConfig, directory: Path, search_data: SearchData
) -> tuple[SearchConfig, SearchData, dict[str, Any], bool]:
    """Store what the study is created with, unless it cannot be resumed so; return whether backbones were added.

    Also returns settings and material with the backbones in the study's own order, and the content of study.json.
    """
    require_batch_sizes(config.batch_sizes, search_data.train_images)
    with trial_store.allocation_lock():
        found = trial_store.about()
        config, dimensions = resume.in_order(found, config, search_data)
        search_data = replace(search_data, dimensions=dimensions)
        wanted = {
            **resume.describe(config, search_data.fingerprint, __version__),
            **resume.describe_search_data(search_data),
        }
        if found:
            resume.require_comparable(found, wanted, where=str(directory))
            resume.require_folder(trial_store.trials(), directory, where=trial_store.shown_url)
        else:
            _require_free(trial_store, directory)
        trial_store.set_about({**found, **wanted, "version": found.get("version", __version__)})
    trial_store.unnamed = resume.first_of_several(config.backbones)
    where = trial_store.shown_url if config.storage else "study.db"
    asked = config.model_dump(mode="json", exclude={"storage"})  # without the storage, which may hold a password
    given = sorted(config.model_fields_set.intersection(PUBLISHED))
    kept = {"name": trial_store.name, "storage": where, "plugins": wanted["plugins"], "asked": asked, "given": given}
    return config, search_data, kept, bool(found) and set(found["backbones"]) != set(config.backbones)


def _require_free(trial_store: TrialStore, directory: Path) -> None:
    """Raise StudyError if a study cannot start in this storage and folder, and remove it from the storage."""
    try:
        resume.require_own(trial_store.foreign_trials, trial_store.name, where=trial_store.shown_url)
        resume.require_unused(directory, where=trial_store.shown_url)
    except StudyError:
        trial_store.withdraw()
        raise
