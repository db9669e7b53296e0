"""An executor whose places have disks of their own: the coordinator's copy of each trial's folder follows theirs.

A subclass says how places are opened, asked and closed; see `open_places.py`. All else is here, once for every kind of
cluster: files are written before an epoch is reported, and a lost place is no crash of its trial.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from automl_pt.core.json_reader import parse_json
from automl_pt.data.by_content import read_pool
from automl_pt.study.executor import failures
from automl_pt.study.executor.base import Answer, Call, Engine, ExecutorJob, TrialSpec
from automl_pt.study.executor.calls import did_not_return, result_of
from automl_pt.study.executor.messages import (
    IteratorEnded,
    Message,
    StudyFailed,
    TrialCrashed,
    TrialFailed,
    TrialLostPlace,
    TrialPlaced,
    TrialStopped,
    TrialWaits,
    message_from_plain,
)
from automl_pt.study.executor.open_places import GpuLost, OpenPlace, OpenPlaces, PlaceCrashed, PlaceLost
from automl_pt.study.executor.remote_place import NOT_FOR_CALLS
from automl_pt.study.executor.run_files import FolderCopy, write_files
from automl_pt.study.executor.versions import plugin_packages, versions_here

#: seconds between two looks at a call
LOOK = 0.2
#: times a function is called where its place, or the place's GPU, was lost
CALLS = 3


class MirroredEngine(OpenPlaces, Engine):
    """Runs trials at places with disks of their own."""

    def __init__(self, job: ExecutorJob) -> None:
        super().__init__()
        self.job = job
        self.bytes_mirrored = 0
        self._pools: dict[str, Any] = {}
        self._packages = plugin_packages(job)
        self._versions = versions_here(self._packages)

    def start(self, spec: TrialSpec) -> None:
        """Begin or resume a trial from the files that this machine has of it."""
        where = self._take_free()
        where.spec, where.heard, where.reported = spec, time.monotonic(), False
        self._busy[spec.number] = where
        self._ask_start(where, spec)

    def _ask_start(self, where: OpenPlace, spec: TrialSpec) -> None:
        """Ask a place to start a trial; a new one reports its versions first."""
        if not where.compared:
            where.pending = self.ask(where.handle, "versions", self._packages)
            return
        files = FolderCopy(spec.output).changes() if spec.output.exists() else {}
        where.pending = self.ask(where.handle, "start", spec.as_plain(), spec.manifest.read_bytes(), files)

    def resume(self, number: int, next_rung: float) -> None:
        """Let a held trial go on."""
        where = self._busy[number]
        where.heard = time.monotonic()
        where.pending = self.ask(where.handle, "resume", next_rung)

    def pause(self, number: int) -> None:
        """Leave a held trial, whose files are here already."""
        where = self._busy.pop(number)
        self.ask(where.handle, "pause")
        self._set_free(where)

    def wait(self, timeout: float) -> list[Message]:
        """Return what the places have answered; the files that belong to it are on this machine's disk by then."""
        by_pending = {where.pending: where for where in self._busy.values() if where.pending is not None}
        if not by_pending:
            time.sleep(min(timeout, 0.05))
            return []
        done = self.answered(list(by_pending), min(timeout, LOOK) if self._anybody_waits() else timeout)
        messages = self._placed()
        for pending in done:
            where = by_pending[pending]
            if where.pending == pending:  # else its trial was given to a place that became free just now
                messages += self._take(where)
        return messages + self._overdue()

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Answer:
        """Call a function at a free place, again where the place was lost; what it tells comes with its answer."""
        for attempt in range(CALLS):
            where = self._take_free()
            try:
                found = self._ask_call(where, call, unwanted)
                if found is not None and "crash" in found:
                    raise GpuLost(found["crash"])
            except (PlaceLost, PlaceCrashed, GpuLost) as ended:
                self._forget(where, lost=isinstance(ended, PlaceLost))
                if isinstance(ended, PlaceCrashed) or attempt + 1 == CALLS:
                    raise did_not_return(call.what, str(ended), "its output is in the cluster's logs") from None
                continue
            if found is None:
                self._forget(where)
                return None
            self._set_free(where)
            yield from found["said"]
            if call.folder:
                write_files(call.folder, found["files"])
            return result_of(found, call.what)
        raise AssertionError("the last attempt returns or raises")

    def halt(self, grace: float) -> list[Message]:
        """Let every trial save and stop within `grace` seconds."""
        deadline, messages = time.monotonic() + grace, list[Message]()
        for where in self._busy.values():
            if where.place is not None and where.pending is not None:
                self.ask(where.handle, "stop")
        while (left := deadline - time.monotonic()) > 0 and any(
            where.pending is not None and where.place is not None for where in self._busy.values()
        ):
            received = self.wait(min(left, 1.0))
            messages += [message for message in received if not isinstance(message, TrialWaits)]
        for where in list(self._busy.values()):
            self._forget(where)
        return messages

    def close(self, grace: float = 0.0) -> list[Message]:
        """Let every trial save and stop within `grace` seconds; then end all places."""
        messages = self.halt(grace)
        for where in list(self._free):
            self._forget(where)
        return messages

    def _take(self, where: OpenPlace) -> list[Message]:
        spec, pending = where.spec, where.pending
        assert spec is not None
        where.pending, where.heard = None, time.monotonic()
        try:
            answer = self.answer(where.handle, pending)
        except PlaceLost as lost:
            self._forget(where, lost=True)
            return [TrialLostPlace(spec.number, str(lost))]
        except PlaceCrashed as crash:
            self._forget(where)
            return [TrialCrashed(spec.number, str(crash))]
        if not where.compared:
            return self._compare(where, spec, answer)
        if answer.get("missing"):
            self._send_pools(where, answer["missing"])
            return []
        self.bytes_mirrored += write_files(spec.output, answer["files"])  # before anything is reported
        messages = [message_from_plain(plain) for plain in answer["told"]]
        self._has_begun = self._has_begun or bool(messages)
        match messages[-1] if messages else None:
            case TrialWaits():
                pass
            case TrialCrashed():
                self._forget(where)  # its process lost the GPU, which a new one can use
            case TrialStopped() | TrialFailed(reason=failures.OUT_OF_MEMORY):
                self._forget(where)  # a new process has all of the memory again, and was not asked to stop
            case IteratorEnded() | TrialFailed() | StudyFailed():
                del self._busy[spec.number]
                self._set_free(where)
            case _:
                where.pending = self.ask(where.handle, "step")
        return messages

    def _set_free(self, where: OpenPlace) -> None:
        """Give a place that became free to a trial that waits for one; the place that it waits for stays asked for.

        Because a free place keeps the cores that it was given, a trial might wait for these for ever.
        """
        super()._set_free(where)
        waiting = next((one for one in self._busy.values() if one.spec is not None and self._locate(one) is None), None)
        if waiting is None or waiting.spec is None:
            return
        spec, waited = waiting.spec, waiting.waited
        del self._busy[spec.number]
        waiting.spec, waiting.pending, waiting.waited = None, None, False
        self.start(spec)
        self._busy[spec.number].waited = waited
        self._free.append(waiting)

    def _compare(self, where: OpenPlace, spec: TrialSpec, versions: Mapping[str, str]) -> list[Message]:
        """Start the trial where the versions allow it; a machine that joins with others is refused, and avoided."""
        refusal = self._refusal(where, versions)
        if refusal is None:
            self._ask_start(where, spec)
            return []
        if not self._has_begun:
            raise refusal
        self._forget(where, lost=True)
        return [TrialLostPlace(spec.number, refusal.in_a_line())]

    def _send_pools(self, where: OpenPlace, names: Sequence[str]) -> None:
        """Bring decoded images to a machine that has none, and start its trial again; each file is read here once."""
        assert where.spec is not None
        for name in names:
            if name not in self._pools:
                self._pools[name] = self.share(read_pool(name, self.job.config.cache_dir))
            self.ask(where.handle, "keep_pool", name, self._pools[name])
        self._ask_start(where, where.spec)

    def _ask_call(self, where: OpenPlace, call: Call, unwanted: Callable[[], bool]) -> Any:
        """Call a function at a place, whose versions must be the coordinator's; None where it is unwanted."""
        if not where.compared:
            pending = self.ask(where.handle, "versions", self._packages)
            versions = self._await_call(where, pending, call, unwanted)
            if versions is None:
                return None
            if (refusal := self._refusal(where, versions)) is not None:
                if not self._has_begun:
                    raise refusal
                raise PlaceLost(refusal.in_a_line())
        files = FolderCopy(call.folder, NOT_FOR_CALLS).changes() if call.folder else {}
        arguments = parse_json(json.dumps(dict(call.arguments)), not_finite=True)
        pending = self.ask(where.handle, "call", call.function, arguments, str(call.folder or ""), files)
        return self._await_call(where, pending, call, unwanted)

    def _await_call(self, where: OpenPlace, pending: Hashable, call: Call, unwanted: Callable[[], bool]) -> Any:
        """Return the answer of a called function; None where it is unwanted and has not come within the grace."""
        deadline: float | None = None
        heard = time.monotonic()
        while not self.answered([pending], LOOK):
            if self._locate(where) is None:
                heard = time.monotonic()
                if unwanted():
                    return None
            limit = self.job.config.trial_timeout
            if limit and time.monotonic() - heard > limit:
                self._forget(where)
                raise did_not_return(call.what, f"nothing within {limit:g} seconds", "its place was closed")
            if deadline is None and unwanted():
                self.ask(where.handle, "stop")
                deadline = time.monotonic() + call.grace
            if deadline is not None and time.monotonic() >= deadline:
                return None
        return self.answer(where.handle, pending)

    def _placed(self) -> list[Message]:
        """Report where trials were placed since this was last asked."""
        messages = list[Message]()
        for number, where in self._busy.items():
            if not where.reported and (place := self._locate(where)) is not None:
                where.heard, where.reported = time.monotonic(), True
                messages.append(TrialPlaced(number, place))
        return messages

    def _overdue(self) -> list[Message]:
        limit, messages = self.job.config.trial_timeout, list[Message]()
        for number, where in list(self._busy.items()):
            silent = where.place is not None and where.pending is not None
            if limit and silent and time.monotonic() - where.heard > limit:
                self._forget(where)
                messages.append(TrialFailed(number, f"hung: no epoch within {limit:.0f} seconds"))
        return messages


def plugin_files(job: ExecutorJob) -> dict[str, bytes]:
    """Return the plugin files of a search by their paths, to travel as content."""
    return {path: Path(path).read_bytes() for path in job.config.plugins}
