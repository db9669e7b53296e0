"""A search, from a dataset's name to one finished model.

`steps` does all of it: open the study, run its trials, report events. It can be killed at any moment; the same call
resumes.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import unicodedata
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.api.next_study import next_study
from automl_pt.config import AUTO, SearchConfig, make
from automl_pt.core.files import make_folder
from automl_pt.plugins.manager import PluginFiles, Plugins, given_plugins, load_plugins
from automl_pt.runs.published import lr_ranges, require_names, with_published
from automl_pt.runs.tracking import Trackers
from automl_pt.study.auto_backbones import with_backbones
from automl_pt.study.events import Event, Finished, NetworkChosen, Notice
from automl_pt.study.executor.choose import require_executor
from automl_pt.study.objective import Objective
from automl_pt.study.records import StudyResult
from automl_pt.study.resume import as_begun
from automl_pt.study.session import OpenStudy
from automl_pt.study.setup import open_study, plugins_before, untouched
from automl_pt.study.store.backends import default_url, shown
from automl_pt.study.store.errors import translated
from automl_pt.study.tracking import follow_study

if TYPE_CHECKING:
    from automl_pt.data.prepare import OnProgress

LONGEST_NAME = 100
#: learning rates to search: from random weights, and from trained ones
Ranges = tuple[tuple[float, float], tuple[float, float]]


def search(
    dataset: str,
    *,
    plugins: Plugins | PluginFiles | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> StudyResult:
    """Search `dataset` with the fields of SearchConfig; `automl_pt.search` has them as keywords, and the documentation.

    `on_progress` is called while images are read, with what is read, how many are and how many there are. Once a study
    has ended and images were added, the call starts `studies/NAME-2` from it.
    """
    registered, files = given_plugins(plugins)
    config = make(SearchConfig, {"dataset": dataset, **settings, **({"plugins": files} if files else {})})
    opened = next_study(config, study_name(config), registered)
    told: dict[str, Any] = {"on_event": on_event, "on_progress": on_progress, "said": opened.notes}
    return run_search(opened.config, opened.directory, plugins=registered, **told)


def run_search(
    config: SearchConfig,
    directory: Path,
    *,
    plugins: Plugins | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_progress: OnProgress | None = None,
    stop: Callable[[], int | None] = lambda: None,
    said: Sequence[str] = (),
) -> StudyResult:
    """Run `steps` to the end and return the result."""
    objective = None if on_progress is None else _images(config, time.monotonic(), on_progress)
    for event in steps(config, directory, plugins=plugins, objective=objective, stop=stop, said=said):
        if on_event is not None:
            on_event(event)
        if isinstance(event, Finished):
            return event.result
    raise AssertionError("Finished is always the last event")


def study_name(config: SearchConfig) -> str:
    """Return the study's name: the given one, or one made from the dataset's that is safe as a folder's name.

    If characters are replaced or cut off, digits of the whole name's hash are appended, so that datasets whose names
    differ only in these characters get different studies.
    """
    if config.name is not None:
        return config.name
    name = unicodedata.normalize("NFC", Path(os.path.abspath(config.dataset)).name)
    if not name:  # the root folder has no name
        return "study"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")
    if plain == name and len(plain) <= LONGEST_NAME and plain[0].isalnum():
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{plain.lstrip('_')[: LONGEST_NAME - 7] or 'study'}-{digest}"


def steps(
    config: SearchConfig,
    directory: Path,
    *,
    plugins: Plugins | None = None,
    objective: Objective | None = None,
    stop: Callable[[], int | None] = lambda: None,
    since: float | None = None,
    said: Sequence[str] = (),
) -> Iterator[Event]:
    """Run the study in `directory`, yielding events; the last is Finished, which holds the result.

    `stop` is called often; once it returns a signal's number all trials save and the search ends. Closing the iterator
    does the same. Time counts from `since`, a value of `time.monotonic`, or from now. `said` are notes of the caller,
    which come first. Raises StudyError if the
    study exists with other data or settings.
    """
    since = time.monotonic() if since is None else since
    objective = objective or _images(config, since)
    with closing(_steps(config, directory, plugins, objective, stop, since, said)) as events:
        told = set[Event]()
        for event in events:
            if isinstance(event, Notice) and event in told:  # several parts of a search may note the same
                continue
            told |= {event} if isinstance(event, Notice) else set()
            yield event


def _steps(
    config: SearchConfig,
    directory: Path,
    plugins: Plugins | None,
    objective: Objective,
    stop: Callable[[], int | None],
    since: float,
    said: Sequence[str],
) -> Generator[Event, None, None]:
    config, notices = _with_plugin_files(config, plugins), list[str]()
    config = as_begun(config, Path(directory))
    plugins = plugins if plugins is not None else load_plugins(config.plugins)
    if AUTO in config.backbones:
        config, chosen = with_backbones(config, Path(directory), plugins)
        said = (*said, chosen)
    yield from map(Notice, said)
    trackers = _trackers(config, plugins, notices)
    require_executor(config, plugins)
    directory = Path(directory).absolute()
    begun = untouched(config, directory, plugins)
    plugins_before(config, directory, plugins)
    config = yield from _started(*_settled(config, plugins), objective, plugins)
    with ExitStack() as stack:
        with begun, translated(shown(config.storage or default_url(directory))):
            study = open_study(config, make_folder(directory), objective, plugins, stop, stack, since)
        yield from follow_study(_events(study, stop), study.follower(trackers), notices)


def _settled(config: SearchConfig, plugins: Plugins | None) -> tuple[SearchConfig, Ranges, tuple[str, ...]]:
    """Settle what the optimiser publishes: values of settings, its ranges of learning rates, and notes for the user.

    Raises UnknownNameError for a name, searched or not, that no plugin registers.
    """
    plugins = plugins or load_plugins(config.plugins)
    require_names(config, plugins)
    config, notes = with_published(config, plugins)
    return config, lr_ranges(config, plugins), notes


def _started(
    config: SearchConfig, ranges: Ranges, notes: Sequence[str], objective: Objective, plugins: Plugins | None
) -> Generator[Event, None, SearchConfig]:
    """Report what each backbone starts from, and fetch its weights; return the settings that fit the start."""
    pretrained: set[bool] = set()
    for start in objective.starts(config, plugins) if objective.starts is not None else ():
        size = start.parameters
        yield NetworkChosen(start.backbone, start.pretrained, start.license, start.download_bytes, start.text, size)
        pretrained.add(start.pretrained)
    if len(pretrained) > 1 and config.probe:
        yield Notice("no linear probe, because only some of the backbones start from pretrained weights")
    for note in notes:
        yield Notice(note)
    return config.for_start(pretrained=pretrained.pop() if len(pretrained) == 1 else None, ranges=ranges)


def _events(study: OpenStudy, stop: Callable[[], int | None]) -> Iterator[Event]:
    yield study.started()
    for text in study.said:
        yield Notice(text)
    with translated(study.storage):
        try:
            yield from study.coordinator.run()
            yield from study.coordinator.leave(study.grace(stop))
            result = yield from study.end(stop)
        finally:
            study.close()
        yield Finished(result)


def _trackers(config: SearchConfig, plugins: Plugins | None, notices: list[str]) -> Trackers | None:
    """Look the trackers up before any other work; by default there are none."""
    if not config.trackers:
        return None
    return Trackers(plugins or load_plugins(config.plugins), config.trackers, report=notices.append)


def _with_plugin_files(config: SearchConfig, plugins: Plugins | None) -> SearchConfig:
    """Add the plugin files of this process to the settings, so that worker processes load them."""
    files = plugins.files if plugins is not None else ()
    return config.model_copy(update={"plugins": tuple(dict.fromkeys([*config.plugins, *files]))}) if files else config


def _images(config: SearchConfig, since: float, progress: OnProgress | None = None) -> Objective:
    from automl_pt.api.classifier_objective import in_time

    return in_time(config, since, progress)
