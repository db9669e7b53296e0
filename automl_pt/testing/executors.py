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
from automl_pt.study.executor.base import Call, Caller, Engine, ExecutorJob, Place, Report, TrialSpec
from automl_pt.study.executor.calls import returned
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

        executor = load_plugins().executor(executor)
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

    def reports(self, enough: Callable[[list[Report]], bool]) -> list[Report]:
        """Return what the executor reports until that is enough; without where a trial was started."""
        found: list[Report] = []
        deadline = time.monotonic() + PATIENCE
        while not enough(found):
            came = f"{found!r} within {PATIENCE:g} seconds"
            expect(time.monotonic() < deadline, "an executor reports what its trials do", came=came, look=_WAIT)
            for report in self.engine.wait(1.0):
                self._check_files(report)
                found += [] if report.place is not None else [report]
        return found

    def _check_files(self, report: Report) -> None:
        """Check that an epoch is reported after its files are on this machine's disk."""
        if report.epoch is None:
            return
        there = len(sample_trial.recorded(self.started[report.number].output))
        expect(
            there >= report.epoch.epoch,
            "the files of an epoch are in the trial's folder before the epoch is reported",
            came=f"epoch {report.epoch.epoch} was reported, the record there has {there}",
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
    first = case.reports(lambda found: any(report.held is not None for report in found))
    rule = "a trial reports its epochs up to `next_rung`, and then that it is held"
    expect(_kinds(first) == ["epoch 1", "epoch 2", "held"], rule, came=str(_kinds(first)), look=_START)
    case.engine.resume(0, EPOCHS)
    rest = case.reports(_is_over)
    expected = [*(f"epoch {epoch}" for epoch in range(3, EPOCHS + 1)), "ended"]
    expect(_kinds(rest) == expected, "go_on() continues to the end", came=str(_kinds(rest)), look="go_on()")
    _check_losses(0, [*first, *rest])


def check_pause(case: ExecutorCase) -> None:
    """Check that a trial that was paused resumes from its files."""
    case.start(1, next_rung=1)
    case.reports(lambda found: any(report.held is not None for report in found))
    case.engine.pause(1)
    case.start(1)
    again = case.reports(_is_over)
    expected = [*(f"epoch {epoch}" for epoch in range(1, EPOCHS + 1)), "ended"]
    rule = "a paused trial that is started again reports the recorded epochs, and then the others"
    expect(_kinds(again) == expected, rule, came=str(_kinds(again)), look="pause() and start()")
    _check_losses(1, again)


def check_failures(case: ExecutorCase) -> None:
    """Check that what a trial raises is reported, and as what."""
    case.start(2, kind="fail")
    failure = case.reports(_is_over)[-1].failure or ""
    rule = "an unexpected error is reported as `failure`, with its type and text"
    expect("ValueError" in failure and "told to fail" in failure, rule, came=repr(failure), look="report_failure")
    case.start(3, kind="fatal")
    fatal = case.reports(_is_over)[-1].fatal
    rule = "an error that every trial would meet is reported as `fatal`"
    expect(isinstance(fatal, DeviceError), rule, came=repr(fatal), look="report_failure")


def check_slots(case: ExecutorCase) -> None:
    """Check that as many trials run at once as there are slots, each from its own files."""
    numbers = range(10, 10 + min(case.engine.slots, 4))
    for number in numbers:
        case.start(number)
    found = case.reports(lambda found: sum(map(_ends, found)) == len(numbers))
    for number in numbers:
        mine = [report for report in found if report.number == number]
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
    before = case.reports(lambda found: any(report.epoch for report in found))
    lose(case.engine)
    before += case.reports(lambda found: any(report.lost for report in found) or _is_over(found))
    rule = "a lost place is reported as `lost`, and not as a failure or crash of its trial"
    expect(before[-1].lost is not None, rule, came=str(_kinds(before)), look=_WAIT)
    case.start(20)
    after = case.reports(_is_over)
    expected = [*(f"epoch {epoch}" for epoch in range(1, EPOCHS + 1)), "ended"]
    rule = "a trial whose place was lost resumes from the files on this machine's disk"
    expect(_kinds(after) == expected, rule, came=str(_kinds(after)), look="start()")
    _check_losses(20, after)


def check_end(case: ExecutorCase) -> None:
    """Check that running trials save when the executor halts, and that calls may follow."""
    case.start(30, kind="slow")
    found = case.reports(lambda found: any(report.epoch for report in found))
    found += case.engine.halt(PATIENCE)
    expect(
        not any(report.failure or report.crash for report in found),
        "halt() lets trials save",
        came=str(_kinds(found)),
        look="halt()",
    )
    done = max(report.epoch.epoch for report in found if report.epoch is not None)
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


def _check_losses(number: int, reports: list[Report]) -> None:
    found = [report.epoch.val_loss for report in reports if report.epoch is not None]
    expected = sample_trial.losses(SALT, number, EPOCHS)
    rule = "each epoch follows from the one before, the trial's own settings and the study's manifest"
    expect(found == expected, rule, came=f"{found}, not {expected}", look=_START)


def _is_over(found: list[Report]) -> bool:
    return any(map(_ends, found))


def _ends(report: Report) -> bool:
    return report.ended or report.left or any((report.failure, report.crash, report.fatal))


def _kinds(reports: list[Report]) -> list[str]:
    """Name what each report says."""
    names = ("held", "ended", "left", "failure", "crash", "lost", "fatal", "probe", "passed")
    kinds = []
    for report in reports:
        said = [name for name in names if getattr(report, name) not in (None, False)]
        kinds += [f"epoch {report.epoch.epoch}"] if report.epoch is not None else said[:1]
    return kinds
