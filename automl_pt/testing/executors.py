"""What an executor must be able to do, tried with small trials that need no network, no GPU and no images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from automl_pt.config import SearchConfig, make
from automl_pt.core.errors import DeviceError
from automl_pt.core.files import write_json
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.study.executor import sample_trial
from automl_pt.study.executor.base import Call, Caller, Engine, ExecutorJob, TrialSpec
from automl_pt.study.executor.calls import returned
from automl_pt.study.executor.messages import (
    EpochEnded,
    IteratorEnded,
    Message,
    Place,
    StudyFailed,
    TrialCrashed,
    TrialFailed,
    TrialLostPlace,
    TrialPlaced,
    TrialStopped,
    TrialWaits,
)
from automl_pt.testing.contract import expect

#: epochs of a trial, and what the study's manifest holds
EPOCHS, SALT = 4, "made up"
#: seconds in which an executor must report something; a process or an actor may have to start
PATIENCE = 60.0

_START, _WAIT = "start() and the trial's iterator", "wait()"


def check_executor(
    executor: ExecutorFactory | str,
    *,
    lose: Callable[[Engine], object] | None = None,
    config: SearchConfig | None = None,
) -> None:
    """Raise PluginError for the first point of the contract that `executor`, or the one of that name, does not keep.

    `lose(executor)` makes the place of a running trial disappear; with it the check covers lost places. `config` has
    settings that the executor needs. The executor is made twice, and closed.
    """
    if isinstance(executor, str):
        from automl_pt.plugins.manager import load_plugins

        executor = load_plugins().named(ExecutorFactory, executor)
    for checks in ((check_places, check_epochs, check_pause, check_failures, check_slots, check_calls), (check_end,)):
        with TemporaryDirectory() as folder:
            case = _case(executor, Path(folder), config or make(SearchConfig, {"dataset": "sample"}))
            try:
                for check in checks:
                    check(case)
                if lose is not None and check_end not in checks:
                    check_lost(case, lose)
            finally:
                case.engine.close()


@dataclass
class ExecutorCase:
    """An executor under test, and the folder of its study."""

    engine: Engine
    folder: Path
    config: SearchConfig
    started: dict[int, TrialSpec] = field(default_factory=dict)

    def start(self, number: int, next_rung: float = EPOCHS, kind: str = "") -> None:
        """Start a trial."""
        settings = self.config.model_copy(update={"dataset": f"sample:{kind}", "epochs": EPOCHS})
        trial = settings.trial(backbone="resnet18", lr=0.1, batch_size=8, seed=number)
        output, manifest = self.folder / "trials" / str(number), self.folder / "manifest.json"
        self.started[number] = TrialSpec(number, trial, output, next_rung, manifest)
        self.engine.start(self.started[number])

    def messages(self, enough: Callable[[list[Message]], bool]) -> list[Message]:
        """Return the executor's messages until they are enough; without where a trial was started."""
        found: list[Message] = []
        deadline = time.monotonic() + PATIENCE
        while not enough(found):
            came = f"{found!r} within {PATIENCE:g} seconds"
            expect(time.monotonic() < deadline, "an executor reports what its trials do", came=came, look=_WAIT)
            for message in self.engine.wait(1.0):
                self._check_files(message)
                found += [] if isinstance(message, TrialPlaced) else [message]
        return found

    def _check_files(self, message: Message) -> None:
        """Check that an epoch is reported after its files are on this machine's disk."""
        if not isinstance(message, EpochEnded):
            return
        there = len(sample_trial.recorded(self.started[message.number].output))
        expect(
            there >= message.result.epoch,
            "the files of an epoch are in the trial's folder before the epoch is reported",
            came=f"epoch {message.result.epoch} was reported, the record there has {there}",
            look="when the executor copies the trial's folder",
        )


def _case(executor: ExecutorFactory, folder: Path, config: SearchConfig) -> ExecutorCase:
    write_json(folder / "manifest.json", {"salt": SALT})
    job = ExecutorJob(config, "automl_pt.study.executor.sample_trial:make", sample_trial.make, folder)
    return ExecutorCase(executor.made(job), folder, config)


def check_places(case: ExecutorCase) -> None:
    """Check what the executor says of its places."""
    slots, places = case.engine.slots, list(case.engine.places())
    expect(slots >= 1, "slots is at least 1: a trial without a place waits", came=repr(slots), look="slots")
    right = all(isinstance(place, Place) and place.device and place.memory >= 0 for place in places)
    expect(right, "places() has a Place with a device for each slot", came=repr(places), look="places()")


def check_epochs(case: ExecutorCase) -> None:
    """Check that epochs are reported in order, and that a trial waits for its answer."""
    case.start(0, next_rung=2)
    first = case.messages(lambda found: _has(found, TrialWaits))
    rule = "a trial reports its epochs up to `next_rung`, and then that it waits"
    expect(_kinds(first) == ["epoch 1", "epoch 2", "TrialWaits"], rule, came=str(_kinds(first)), look=_START)
    case.engine.resume(0, EPOCHS)
    rest = case.messages(_is_over)
    expected = [*(f"epoch {epoch}" for epoch in range(3, EPOCHS + 1)), "IteratorEnded"]
    expect(_kinds(rest) == expected, "resume() continues to the end", came=str(_kinds(rest)), look="resume()")
    _check_losses(0, [*first, *rest])


def check_pause(case: ExecutorCase) -> None:
    """Check that a trial that was paused resumes from its files."""
    case.start(1, next_rung=1)
    case.messages(lambda found: _has(found, TrialWaits))
    case.engine.pause(1)
    case.start(1)
    again = case.messages(_is_over)
    expected = [*(f"epoch {epoch}" for epoch in range(1, EPOCHS + 1)), "IteratorEnded"]
    rule = "a paused trial that is started again reports the recorded epochs, and then the others"
    expect(_kinds(again) == expected, rule, came=str(_kinds(again)), look="pause() and start()")
    _check_losses(1, again)


def check_failures(case: ExecutorCase) -> None:
    """Check that what a trial raises is reported, and as what."""
    case.start(2, kind="fail")
    last = case.messages(_is_over)[-1]
    rule = "an unexpected error is reported as `TrialFailed`, with its type and text"
    said = isinstance(last, TrialFailed) and "ValueError" in last.reason and "told to fail" in last.reason
    expect(said, rule, came=repr(last), look="failure_of()")
    case.start(3, kind="fatal")
    last = case.messages(_is_over)[-1]
    rule = "an error that every trial would meet is reported as `StudyFailed`"
    shared = isinstance(last, StudyFailed) and isinstance(last.error, DeviceError)
    expect(shared, rule, came=repr(last), look="failure_of()")


def check_slots(case: ExecutorCase) -> None:
    """Check that as many trials run at once as there are slots, each from its own files."""
    numbers = range(10, 10 + min(case.engine.slots, 4))
    for number in numbers:
        case.start(number)
    found = case.messages(lambda found: sum(map(_ends, found)) == len(numbers))
    for number in numbers:
        mine = [message for message in found if message.number == number]
        _check_losses(number, mine)


def check_calls(case: ExecutorCase) -> None:
    """Check functions that are called where trials run."""
    told: list[str] = []
    found = returned(case.engine.call(_doubling(21)), told.append)
    came = f"{found!r}, told {told!r}"
    expect(found == 42 and told == ["doubling 21"], "call() passes on what a function tells", came=came, look="call()")
    try:
        error: object = returned(case.engine.call(_doubling(-1)))
    except Exception as raised:
        error = raised
    rule = "call() raises the errors of automl_pt.core.errors that the function raises"
    expect(isinstance(error, DeviceError), rule, came=repr(error), look="call()")


def check_lost(case: ExecutorCase, lose: Callable[[Engine], object]) -> None:
    """Check that a lost place is no crash, and that its trial resumes elsewhere with nothing lost or doubled."""
    case.start(20, kind="slow")
    before = case.messages(lambda found: _has(found, EpochEnded))
    lose(case.engine)
    before += case.messages(lambda found: _has(found, TrialLostPlace) or _is_over(found))
    rule = "a lost place is reported as `TrialLostPlace`, and not as a failure or crash of its trial"
    expect(isinstance(before[-1], TrialLostPlace), rule, came=str(_kinds(before)), look=_WAIT)
    case.start(20)
    after = case.messages(_is_over)
    expected = [*(f"epoch {epoch}" for epoch in range(1, EPOCHS + 1)), "IteratorEnded"]
    rule = "a trial whose place was lost resumes from the files on this machine's disk"
    expect(_kinds(after) == expected, rule, came=str(_kinds(after)), look="start()")
    _check_losses(20, after)


def check_end(case: ExecutorCase) -> None:
    """Check that running trials save when the executor halts, and that calls may follow."""
    case.start(30, kind="slow")
    found = case.messages(lambda found: _has(found, EpochEnded))
    found += case.engine.halt(PATIENCE)
    expect(
        not _has(found, TrialFailed, TrialCrashed),
        "halt() lets trials save",
        came=str(_kinds(found)),
        look="halt()",
    )
    done = max(message.result.epoch for message in found if isinstance(message, EpochEnded))
    there = len(sample_trial.recorded(case.started[30].output))
    came = f"{there} epochs on disk, {done} reported"
    expect(there >= done, "what was reported is on disk after halt()", came=came, look="halt()")
    expect(
        returned(case.engine.call(_doubling(1))) == 2, "calls may follow halt()", came="another result", look="halt()"
    )
    case.engine.close()


def _doubling(number: int) -> Call:
    def here(caller: Caller) -> object:
        return sample_trial.double(number, "cpu", 1, caller)

    return Call("automl_pt.study.executor.sample_trial:double", {"number": number}, here, "the doubling of a number")


def _check_losses(number: int, messages: list[Message]) -> None:
    found = [message.result.val_loss for message in messages if isinstance(message, EpochEnded)]
    expected = sample_trial.losses(SALT, number, EPOCHS)
    rule = "each epoch follows from the one before, the trial's own settings and the study's manifest"
    expect(found == expected, rule, came=f"{found}, not {expected}", look=_START)


def _has(found: list[Message], *kinds: type[Message]) -> bool:
    return any(isinstance(message, kinds) for message in found)


def _is_over(found: list[Message]) -> bool:
    return any(map(_ends, found))


def _ends(message: Message) -> bool:
    return isinstance(message, IteratorEnded | TrialStopped | TrialFailed | TrialCrashed | StudyFailed)


def _kinds(messages: list[Message]) -> list[str]:
    """Name what each message says."""
    return [
        f"epoch {message.result.epoch}" if isinstance(message, EpochEnded) else type(message).__name__
        for message in messages
    ]
