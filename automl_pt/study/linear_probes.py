"""The linear probes of a search that starts from weights: one per backbone, before the first trial.

A probe costs about one pass over the images and is a complete model: it is published at once, so that a search is
never worse. Its number is below 0: the first backbone's is -1. Its record is stored with the study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from automl_pt.config import SearchConfig
from automl_pt.core.errors import StudyError
from automl_pt.core.files import read_json
from automl_pt.runs.published import DEFAULT_LR
from automl_pt.study.events import Event, Notice, PassDone, ProbeEnded, ProbeStarted
from automl_pt.study.executor.base import Engine, TrialSpec
from automl_pt.study.executor.linear_probe import FILE, probe_config
from automl_pt.study.executor.messages import (
    EpochEnded,
    IteratorEnded,
    Message,
    PassAdvanced,
    PassProgress,
    StudyFailed,
    TrialCrashed,
    TrialFailed,
    TrialLostPlace,
    TrialStopped,
)
from automl_pt.study.model_store import ModelStore
from automl_pt.study.records import ProbeRecord
from automl_pt.study.space.space import DEFAULT_BATCH_SIZE, Space
from automl_pt.study.store.trials import TrialStore

#: how often a probe's process may die before the probe is given up
CRASHES_ALLOWED = 3
#: the second backbone is fine-tuned too if its probe's loss is at most this many times the best one's
CLOSE = 1.1
#: share of a pass between two progress events
TOLD = 0.1
#: the messages after which a probe does not run
_ENDS = IteratorEnded | TrialStopped | TrialCrashed | TrialLostPlace | TrialFailed | StudyFailed


@dataclass
class LinearProbes:
    """Runs the probes that a study still lacks, on the executor of its trials."""

    config: SearchConfig
    trial_store: TrialStore
    model_store: ModelStore
    engine: Engine
    _crashes: dict[int, int] = field(default_factory=dict)
    _told: dict[int, float] = field(default_factory=dict)

    def run(
        self, must_stop: Callable[[], bool], keep_best: Callable[[], Iterator[Event]], space: Space
    ) -> Generator[Event, None, Space]:
        """Probe each backbone, and publish each probe that is the best model so far; return the remaining search space.

        Of several backbones those with the best probes remain.
        """
        for event in self._probes(must_stop):
            yield event
            if isinstance(event, ProbeEnded):
                yield from keep_best()
        bounded = self.config.max_params is not None or self.config.max_ms is not None
        if (len(space.backbones) < 2 and not bounded) or must_stop():
            return space
        names, said = chosen(self.config, self.trial_store.probes())
        yield Notice(said)
        return space.only(names)

    def _probes(self, must_stop: Callable[[], bool]) -> Iterator[Event]:
        """Yield events until each backbone has its probe, or is known to have none, or the search must stop."""
        names = list(dict.fromkeys(self.config.backbones))
        known = {record.backbone for record in self.trial_store.probes()}
        waiting = [(-1 - place, name) for place, name in enumerate(names) if name not in known]
        running: dict[int, str] = {}
        while (waiting or running) and not must_stop():
            while waiting and len(running) < self.engine.slots:
                number, name = waiting.pop(0)
                running[number] = name
                yield self._start(number, name)
            for message in self.engine.wait(0.2):
                yield from self._take(message, running, waiting)
            yield from map(Notice, self.engine.notices())

    def _start(self, number: int, name: str) -> Event:
        trial = self.config.trial(backbone=name, lr=DEFAULT_LR, batch_size=DEFAULT_BATCH_SIZE, seed=self.config.seed)
        manifest = self.model_store.directory / "manifest.json"
        self.engine.start(TrialSpec(number, probe_config(trial), self.model_store.output(number), 1, manifest))
        return ProbeStarted(number, name)

    def _take(self, message: Message, running: dict[int, str], waiting: list[tuple[int, str]]) -> Iterator[Event]:
        number = message.number
        if number not in running:
            return
        name = running[number]
        if isinstance(message, _ENDS):
            running.pop(number)
        match message:
            case PassAdvanced(progress=PassProgress(done=done, total=total)):
                if done == total or done >= self._told.get(number, 0.0):
                    self._told[number] = done + TOLD * total
                    yield PassDone(number, name, done, total)
            case EpochEnded():
                yield self._keep(number, name)
            case TrialCrashed(reason=crash):
                self._crashes[number] = self._crashes.get(number, 0) + 1
                if self._crashes[number] < CRASHES_ALLOWED:
                    waiting.insert(0, (number, name))
                    yield Notice(f"probe of {name}: {crash}; it resumes from the features on disk")
                else:
                    yield self._give_up(number, name, f"{crash}, {CRASHES_ALLOWED} times")
            case TrialLostPlace(reason=reason):
                waiting.insert(0, (number, name))
                yield Notice(f"probe of {name}: {reason}; it begins again elsewhere")
            case TrialFailed(reason=reason):
                yield self._give_up(number, name, reason.removeprefix("PluginError: "))
            case StudyFailed(error=error):
                yield self._give_up(number, name, error.in_a_line())

    def _keep(self, number: int, name: str) -> Event:
        found = read_json(self.model_store.output(number) / FILE)
        record = ProbeRecord.from_dict({**found, "number": number, "backbone": name})
        record = replace(record, failure=over_limit(self.config, record))
        with self.trial_store.allocation_lock():
            self.trial_store.add_probe(record)
        return ProbeEnded(record)

    def _give_up(self, number: int, name: str, reason: str) -> Event:
        """Continue without the probe: its trials start from a new head, and have no floor to reach."""
        with self.trial_store.allocation_lock():
            self.trial_store.add_probe(ProbeRecord(number, name, failure=reason))
        return Notice(f"no probe of {name}: {reason}; its trials start from a new head")


def over_limit(config: SearchConfig, probe: ProbeRecord) -> str | None:
    """Return the limit that a backbone exceeds; None if it exceeds none."""
    if config.max_params is not None and (probe.parameters or 0) > config.max_params:
        return f"{probe.parameters:,} parameters, over the limit of {config.max_params:,}"
    if config.max_ms is not None and (probe.milliseconds or 0) > config.max_ms:
        return f"{probe.milliseconds:.1f} ms an image, over the limit of {config.max_ms:g}"
    return None


def chosen(config: SearchConfig, probes: Sequence[ProbeRecord]) -> tuple[tuple[str, ...], str]:
    """Return the backbones to fine-tune, best first, and a sentence with the reason: their probes' losses.

    The best is used, and the second if its loss is at most `CLOSE` times as high. Backbones without a linear head have
    no probe, and are tuned only if no other remains. Raises StudyError if none is within the limits.
    """
    names = [name for name in dict.fromkeys(config.backbones)]
    by_name = {probe.backbone: probe for probe in probes}
    ranking = sorted(
        (probe for probe in by_name.values() if probe.failure is None and probe.backbone in names),
        key=lambda probe: (probe.value if probe.value is not None else math.inf, names.index(probe.backbone)),
    )
    losses = ", ".join(f"{probe.backbone} {probe.value:.4f}{probe.cost_of_use()}" for probe in ranking)
    taken = [probe.backbone for probe in ranking[:2] if (probe.value or 0) <= CLOSE * (ranking[0].value or 0)]
    if ranking:
        return tuple(taken), f"backbones by their probes' loss: {losses}; fine-tuned: {', '.join(taken)}"
    if config.max_params or config.max_ms:
        raise StudyError(
            "no backbone is within --max-params and --max-ms",
            given="; ".join(f"{probe.backbone}: {probe.failure}" for probe in probes),
            remedy="raise the limits, or choose smaller backbones",
        )
    return tuple(names), "no backbone could be probed: all of them are searched"


def head_of(asked: str, backbone: str, probes: Sequence[ProbeRecord]) -> str:
    """Return the head that a trial of `backbone` starts from: its probe's if that is `asked` and was fitted."""
    failed = {record.backbone for record in probes if record.c is None}
    return "probe" if asked == "probe" and backbone not in failed else "new"
