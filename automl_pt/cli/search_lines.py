"""A search in plain lines: its start, its events, its result and what to do next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.cli.display import images_line, metric_texts
from automl_pt.cli.tables import loss, parameter
from automl_pt.core.text import counted, printable, shown_path
from automl_pt.data.cache.disk import gigabytes
from automl_pt.plugins.metrics import Metric
from automl_pt.reporting.accuracy import read_accuracy
from automl_pt.study import events
from automl_pt.study.extras.descriptions import extras_lines
from automl_pt.study.records import ModelComparison, ProbeRecord, StudyResult, chosen_by, disagreement, in_order, title
from automl_pt.study.views import ENDED

#: copies of a network's numbers, of 4 bytes each, that a running trial keeps on disk: weights, momentum, best weights
COPIES = 3


def describe(event: events.Event, metrics: Mapping[str, Metric] = BY_NAME) -> list[str]:
    """Return an event as plain lines, safe for a terminal; `metrics` are the metrics known here."""
    match event:
        case events.NetworkChosen():
            return [escape(f"network: {event.text}")]
        case events.StudyStarted():
            return []  # see `Opening`
        case events.ProbeStarted():
            return [escape(f"linear probe of {event.backbone}: a linear head on the features of the frozen network")]
        case events.PassDone():
            return [escape(f"linear probe of {event.backbone}: features of {event.done} of {event.total} images")]
        case events.ProbeEnded():
            return [escape(probe_line(event.probe, metrics))]
        case events.TrialStarted():
            rival = " (rival)" if event.rival is not None else ""
            return [escape(f"trial {event.number}{rival} {_verb(event)}: {params_text(event.params)}")]
        case events.TrialRanked():
            return [
                f"trial {event.trial}: short trial run of {event.epoch:.2g} epochs, ranking loss {event.rank_loss:.4f}"
            ]
        case events.EpochDone():
            result = event.result
            figures = ", ".join(metric_texts(result.values(), metrics))
            return [escape(f"trial {event.trial} epoch {result.epoch}: {figures}, {result.seconds:.1f} s")]
        case events.TrialPaused():
            return [f"trial {event.number} paused" + (f" after epoch {event.epoch:g}" if event.epoch >= 1 else "")]
        case events.TrialEnded():
            value = "" if event.value is None else f", val loss {event.value:.4f}"
            epochs = counted(event.epochs, "epoch") if event.epochs else "after its short trial run"
            return [escape(f"trial {event.number} ended: {event.reason}{value}, {epochs}, {event.seconds:.1f} s")]
        case events.NewBest():
            by = f", {event.chosen_by}" if event.chosen_by else ""
            return [escape(f"best so far: {title(event.number)}, val loss {event.value:.4f}{by}")]
        case events.Finishing():
            return [escape(f"finishing: {event.text}")]
        case events.Notice():
            return [escape(f"note: {event.text}")]
        case events.Finished():
            return result_lines(event)
    return []


def _verb(event: events.TrialStarted) -> str:
    if event.epochs_done >= 1:
        return f"resumes after epoch {event.epochs_done:.2g}"
    return "starts a short trial run" if not event.epochs_done and event.until < 1 else "starts"


class Opening:
    """Makes the first lines of a search: networks, data and device, search space, time and disk."""

    def __init__(self) -> None:
        self._parameters: list[int | None] = []

    def lines(self, event: events.Event) -> list[str]:
        """Return the lines of an event at the start of a search; none for other events."""
        if isinstance(event, events.NetworkChosen):
            self._parameters.append(event.parameters)
            return describe(event)
        return list(map(escape, self._started(event))) if isinstance(event, events.StudyStarted) else []

    def _started(self, event: events.StudyStarted) -> Iterator[str]:
        done = f", {event.finished} of them finished earlier" if event.finished else ""
        if event.classes:
            images = images_line(event.images, event.classes, event.image_sizes)
            yield f"{images}; on {event.device} in {event.precision}"
            yield f"search:  {event.searched}; {counted(event.trials, 'trial')} of at most {_epochs(event)}{done}"
        at_once = f"{event.workers} at a time" if event.workers else "one at a time"
        yield f"study:   {shown_path(event.directory)}, {at_once}; {self._cost(event)}"

    def _cost(self, event: events.StudyStarted) -> str:
        limit = "time: after epoch 1"
        if event.timeout is not None:
            limit = f"time: at most {clock(event.timeout)}"
        known = [count for count in self._parameters if count is not None]
        if not known:
            return limit
        copies = COPIES * min(event.trials, 2 * max(1, event.workers)) + 2
        return f"{limit}, disk: about {gigabytes(4 * max(known) * copies)}"


def _epochs(event: events.StudyStarted) -> str:
    return counted(event.epochs, "epoch")


def result_lines(event: events.Finished) -> list[str]:
    """Return lines on the best trial, its figures, and what to do next."""
    result = event.result
    ended = ENDED.get(result.stopped, result.stopped)
    lines = [f"{counted(len(result.trials), 'trial')} in {clock(result.seconds)}: {ended}"]
    if result.best is not None and result.best.value is not None:
        lines.append(f"best:     {result.best.title}, {params_text(result.best.params)}")
        lines += _figures(result)
    lines += extras_lines(result.made)
    lines += [f"note: {note}" for note in result.notes]
    lines += next_lines(result)
    return [escape(line) for line in lines]


def _figures(result: StudyResult) -> Iterator[str]:
    assert result.best is not None
    best = result.best
    found = read_accuracy(Path(result.directory), best, result.trials, result.probes, result.test)
    yield from found.lines() if found is not None else ()
    test = "" if result.test is None else "".join(f", test {name} {value:.4f}" for name, value in result.test.items())
    yield f"loss:     validation {loss(best.value)}{test if found is None else ''}"
    if result.gain is not None:
        yield result.gain.sentence()
    by = chosen_by(result.objective, best.metrics)
    if by:
        yield f"chosen:   by {by}"
        yield from disagreement([*(one.as_trial() for one in result.probes), *result.trials], best, result.objective)
    if result.comparison is not None:
        yield from lead_lines(result.comparison)
    elif result.runner_up is not None and result.runner_up.value is not None:
        second = result.runner_up
        yield (
            f"runner-up: {second.title}, {second.reason} after {counted(second.epochs, 'epoch')}, "
            f"val loss {second.value:.4f}; not compared image by image"
        )


def lead_lines(found: ModelComparison) -> Iterator[str]:
    """Yield lines on the best trial's lead in loss, which may be negative with another objective."""
    other = title(found.runner_up)
    ahead = f"clearly ahead of {other}" if found.difference >= 0 else f"the loss of {other} is clearly lower"
    verdict = f"statistically tied with {other}" if found.inside_noise else ahead
    gap = f"{found.difference:.4f} +- {found.standard_error:.4f} over {found.images} images"
    yield f"lead:     {verdict} (difference in loss {gap})"
    against = found.disagreement()
    if against is not None:
        yield f"note: {against}"


def next_lines(result: StudyResult) -> Iterator[str]:
    """Yield lines on the model's path and what to do next."""
    if result.signal is not None:
        yield "stopped:  everything finished so far is kept; run the same command to continue"
    if result.model is None:
        yield "no model"
        return
    model = shown_path(result.model)
    yield f"model:    {model}"
    if result.report is not None:
        yield f"page:     {shown_path(result.report)} (open it in a browser)"
    if result.signal is None:
        study = shown_path(result.directory)
        name = os.path.relpath(study, "studies") if study.startswith(f"studies{os.sep}") else study
        yield f"next:     automl-pt predict {shlex.quote(model)} IMAGES"
        yield f"          automl-pt report {shlex.quote(name)}"
        if result.best is not None and result.best.rival is not None:
            optimizer = shlex.quote(printable(str(result.best.rival.get("optimizer"))))
            yield f"          a search with --optimizer {optimizer} and another --name, for rates of the rival that won"


def probe_line(probe: ProbeRecord, metrics: Mapping[str, Metric] = BY_NAME) -> str:
    """Return a line on a linear probe's figures and time."""
    if probe.value is None or probe.accuracy is None or probe.c is None:
        return f"linear probe of {probe.backbone}: none ({probe.failure})"
    figures = ", ".join([*metric_texts(probe.as_trial().metrics, metrics), f"{probe.seconds:.1f} s"])
    excluded = "" if probe.failure is None else f"; not used: {probe.failure}"
    return f"linear probe of {probe.backbone}: {figures}{excluded}"


def params_text(params: dict[str, Any]) -> str:
    """Write a trial's parameters in a fixed order, learning rates with three digits."""
    names = {"lr": "learning rate", "batch_size": "batch size"}
    return ", ".join(f"{names.get(name, name)} {parameter(params[name])}" for name in in_order(params))


def clock(seconds: float) -> str:
    """Write a duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
