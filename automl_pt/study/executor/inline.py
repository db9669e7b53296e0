"""The executor in this process: one trial at a time, one epoch per `wait`. For notebooks, debuggers and tests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

from automl_pt.core.errors import AutomlError, DeviceLostError
from automl_pt.plugins.faults import described
from automl_pt.study.executor.base import (
    Answer,
    Call,
    Caller,
    Engine,
    ExecutorJob,
    MakeTrial,
    Step,
    TrialSpec,
)
from automl_pt.study.executor.calls import failed
from automl_pt.study.executor.failures import failure_of
from automl_pt.study.executor.messages import (
    IteratorEnded,
    Message,
    Place,
    StudyFailed,
    TrialCrashed,
    TrialStopped,
    messages_of,
)


class InlineEngine(Engine):
    """Runs trials in this process; `should_stop` is asked after every training step and ends the trial's epoch."""

    slots = 1
    in_process = True

    def __init__(
        self, make: MakeTrial, should_stop: Callable[[], bool] = lambda: False, device: str | None = None
    ) -> None:
        self._make, self._should_stop, self._device = make, should_stop, device
        self._spec: TrialSpec | None = None
        self._epochs: Iterator[Step] | None = None
        self._next_rung = 0.0

    def places(self) -> Sequence[Place]:
        """Return the device that the settings name; none where there are no settings."""
        if self._device is None:
            return ()
        from automl_pt.study.executor.devices import devices_for, places_for

        return places_for(devices_for(self._device, 1, 1))

    def start(self, spec: TrialSpec) -> None:
        """Start or resume a trial."""
        self._spec, self._next_rung = spec, spec.next_rung

    def resume(self, number: int, next_rung: float) -> None:
        """Let the waiting trial continue to epoch `next_rung`."""
        self._next_rung = next_rung

    def pause(self, number: int) -> None:
        """Drop the waiting trial."""
        self._leave()

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Answer:
        """Call a function in this process, without a time limit; if it kills the process, the search ends."""
        told: list[str] = []
        try:
            found = call.here(Caller(told.append, should_stop=unwanted))
            if isinstance(found, Generator):
                found = yield from found
        except AutomlError:
            raise
        except (Exception, SystemExit) as error:
            raise failed(call.what, described(error)) from error
        yield from told
        return found

    def wait(self, timeout: float) -> list[Message]:
        """Run one epoch of the trial; `should_stop` can interrupt it, `timeout` cannot."""
        if self._spec is None:
            return []
        number = self._spec.number
        try:
            if self._epochs is None:
                self._epochs = self._make(self._spec, self._should_stop)
            step = next(self._epochs, None)
        except (Exception, SystemExit) as error:
            self._leave()
            failure = failure_of(number, error)
            if not isinstance(failure, TrialCrashed):
                return [failure]
            # this process lost its GPU, and no other takes its place: the search ends, and resumes when run again
            lost = error if isinstance(error, DeviceLostError) else DeviceLostError(error)
            return [StudyFailed(number, lost)]
        if step is None:
            self._leave()
            return [TrialStopped(number) if self._should_stop() else IteratorEnded(number)]
        return messages_of(number, step, self._next_rung)

    def halt(self, grace: float) -> list[Message]:
        """Drop the trial; it is between two epochs here, so there is nothing to wait for."""
        self._leave()
        return []

    def close(self, grace: float = 0.0) -> list[Message]:
        """Drop the trial."""
        return self.halt(grace)

    def _leave(self) -> None:
        epochs, self._spec, self._epochs = self._epochs, None, None
        if isinstance(epochs, Generator):
            epochs.close()


def make_executor(job: ExecutorJob) -> InlineEngine:
    """Return the executor that is this process, with the plugins that are registered in it by hand."""
    return InlineEngine(job.trial_here, job.should_stop, job.config.device)
