"""An executor whose places have disks of their own: the coordinator's copy of each trial's folder follows theirs.

A subclass says how places are opened, asked and closed. All else is here, once for every kind of cluster: files are
written before an epoch is reported; a lost place is reported as lost, and the next start avoids its machine; what a
closed place still sends is ignored, because its answers are forgotten with it; a wait for a place is reported.
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_pt.data.by_content import read_pool
from automl_pt.study.executor.base import Answer, Call, Engine, ExecutorJob, Place, Report, TrialSpec
from automl_pt.study.executor.calls import did_not_return, failed, from_plain
from automl_pt.study.executor.failures import OUT_OF_MEMORY
from automl_pt.study.executor.remote_place import NOT_FOR_CALLS, report_from_plain
from automl_pt.study.executor.run_files import FolderCopy, write_files

#: seconds after which a trial that waits for a place is reported to the user, and between two looks at a call
PATIENCE, LOOK = 3.0, 0.2
#: times a function is called again where its place was lost
CALLS = 3


class PlaceLost(Exception):  # noqa: N818  # no error: machines of a cluster go
    """A place is gone, through no fault of what it ran."""


class PlaceCrashed(Exception):  # noqa: N818  # the executor reports it as the crash of a trial
    """The process at a place has died, on a machine that lives."""


@dataclass(eq=False)
class OpenPlace:
    """The coordinator's end of a place: `handle` is what the subclass knows it by."""

    handle: Any
    opened: float
    spec: TrialSpec | None = None
    pending: Hashable | None = None
    #: where it is, once that is known
    place: Place | None = None
    #: whether it was reported where its trial runs
    reported: bool = False
    #: whether the user was told that it waits
    waited: bool = False
    heard: float = 0.0


class MirroredEngine(Engine):
    """Runs trials at places with disks of their own."""

    def __init__(self, job: ExecutorJob) -> None:
        self.job = job
        self.bytes_mirrored = 0
        self._busy: dict[int, OpenPlace] = {}
        self._free: list[OpenPlace] = []
        self._lost: set[str] = set()
        self._said: list[str] = []
        self._pools: dict[str, Any] = {}

    # -- what a subclass gives ---------------------------------------------------------------------------------------

    @abstractmethod
    def open_place(self, avoid: frozenset[str]) -> Any:
        """Begin to open a place, on none of the machines in `avoid` where there is another; return its handle."""

    @abstractmethod
    def located(self, handle: Any) -> Place | None:
        """Return where a place is; None while it waits for a machine."""

    @abstractmethod
    def ask(self, handle: Any, method: str, *values: Any) -> Hashable:
        """Call a method of the `RemotePlace` there; return what stands for its answer."""

    @abstractmethod
    def answered(self, pending: Sequence[Any], timeout: float) -> Sequence[Any]:
        """Return those that are answered, after at most `timeout` seconds."""

    @abstractmethod
    def answer(self, handle: Any, pending: Any) -> Any:
        """Return an answer; raise PlaceLost or PlaceCrashed where there will be none."""

    @abstractmethod
    def close_place(self, handle: Any) -> None:
        """End a place at once; it may be gone already."""

    @abstractmethod
    def shortage(self) -> str:
        """Say what a place asks for, and what the cluster has."""

    def share(self, content: bytes) -> Any:
        """Return what stands for a large content in calls to several places."""
        return content

    # -- the executor ------------------------------------------------------------------------------------------------

    def notices(self) -> Sequence[str]:
        """Return what the user should know: who waits for a place."""
        said, self._said = self._said, []
        return said

    def start(self, spec: TrialSpec) -> None:
        """Begin or resume a trial from the files that this machine has of it."""
        where = self._take_free()
        where.spec, where.heard, where.reported = spec, time.monotonic(), False
        self._busy[spec.number] = where
        self._ask_start(where, spec)

    def _ask_start(self, where: OpenPlace, spec: TrialSpec) -> None:
        plain = {"number": spec.number, "next_rung": spec.next_rung, "ranked_at": list(spec.ranked_at)}
        plain["config"] = spec.config.model_dump(mode="json")
        files = FolderCopy(spec.output).changes() if spec.output.exists() else {}
        where.pending = self.ask(where.handle, "start", plain, spec.manifest.read_bytes(), files)

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

    def wait(self, timeout: float) -> list[Report]:
        """Return what the places have answered; the files that belong to it are on this machine's disk by then."""
        by_pending = {where.pending: where for where in self._busy.values() if where.pending is not None}
        if not by_pending:
            time.sleep(min(timeout, 0.05))
            return []
        done = self.answered(list(by_pending), min(timeout, LOOK) if self._anybody_waits() else timeout)
        reports = self._placed()
        for pending in done:
            reports += self._take(by_pending[pending])
        return reports + self._overdue()

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Answer:
        """Call a function at a free place, again where the place was lost; what it tells comes with its answer."""
        for attempt in range(CALLS):
            where = self._take_free()
            files = FolderCopy(call.folder, NOT_FOR_CALLS).changes() if call.folder else {}
            arguments = json.loads(json.dumps(dict(call.arguments)))
            pending = self.ask(where.handle, "call", call.function, arguments, str(call.folder or ""), files)
            try:
                found = self._await_call(where, pending, call, unwanted)
            except (PlaceLost, PlaceCrashed) as ended:
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
            return _returned(found, call.what)
        raise AssertionError("the last attempt returns or raises")

    def halt(self, grace: float) -> list[Report]:
        """Let every trial save and stop within `grace` seconds."""
        deadline, reports = time.monotonic() + grace, list[Report]()
        for where in self._busy.values():
            if where.place is not None and where.pending is not None:
                self.ask(where.handle, "stop")
        while (left := deadline - time.monotonic()) > 0 and any(
            where.pending is not None and where.place is not None for where in self._busy.values()
        ):
            reports += [report for report in self.wait(min(left, 1.0)) if report.held is None]
        for where in list(self._busy.values()):
            self._forget(where)
        return reports

    def close(self, grace: float = 0.0) -> list[Report]:
        """Let every trial save and stop within `grace` seconds; then end all places."""
        reports = self.halt(grace)
        for where in list(self._free):
            self._forget(where)
        return reports

    def _take(self, where: OpenPlace) -> list[Report]:
        spec, pending = where.spec, where.pending
        assert spec is not None
        where.pending, where.heard = None, time.monotonic()
        try:
            answer = self.answer(where.handle, pending)
        except PlaceLost as lost:
            self._forget(where, lost=True)
            return [Report(spec.number, lost=str(lost))]
        except PlaceCrashed as crash:
            self._forget(where)
            return [Report(spec.number, crash=str(crash))]
        if answer.get("missing"):
            self._send_pools(where, answer["missing"])
            return []
        self.bytes_mirrored += write_files(spec.output, answer["files"])  # before anything is reported
        reports = [report_from_plain(spec.number, plain) for plain in answer["told"]]
        if any(report.ended or report.left or report.failure or report.fatal for report in reports):
            del self._busy[spec.number]
            self._set_free(where)
            if any(report.failure == OUT_OF_MEMORY or report.left for report in reports):
                self._forget(where)  # a new process has all of the memory again, and was not asked to stop
        elif not any(report.held is not None for report in reports):
            where.pending = self.ask(where.handle, "step")
        return reports

    def _send_pools(self, where: OpenPlace, names: Sequence[str]) -> None:
        """Bring decoded images to a machine that has none, and start its trial again; each file is read here once."""
        assert where.spec is not None
        for name in names:
            if name not in self._pools:
                self._pools[name] = self.share(read_pool(name, self.job.config.cache_dir))
            self.ask(where.handle, "keep_pool", name, self._pools[name])
        self._ask_start(where, where.spec)

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

    def _take_free(self) -> OpenPlace:
        """Return a place that runs nothing; open one where there is none."""
        free = [where for where in self._free if where.place is None or where.place.name not in self._lost]
        if free:
            self._free.remove(free[0])
            return free[0]
        now = time.monotonic()
        return OpenPlace(self.open_place(frozenset(self._lost)), now, heard=now)

    def _set_free(self, where: OpenPlace) -> None:
        where.spec, where.pending = None, None
        self._free.append(where)

    def _forget(self, where: OpenPlace, *, lost: bool = False) -> None:
        """Close a place, whose later answers are ignored."""
        if lost and where.place is not None:
            self._lost.add(where.place.name)
        gone = [other for other in self._free if other.place is not None and other.place.name in self._lost]
        for other in {id(one): one for one in (where, *gone)}.values():
            if other in self._free:
                self._free.remove(other)
            other.pending = None
            self.close_place(other.handle)
        self._busy = {number: other for number, other in self._busy.items() if other is not where}

    def _locate(self, where: OpenPlace) -> Place | None:
        """Return where a place is; tell the user, once, that it has waited for long."""
        if where.place is None:
            where.place = self.located(where.handle)
        if where.place is None and not where.waited and time.monotonic() - where.opened > PATIENCE:
            where.waited = True
            self._said.append(f"waiting for a place: {self.shortage()}")
        if where.place is not None and where.waited:
            where.waited = False
            self._said.append(f"a place was found on {where.place.name or 'a machine'} ({where.place.kind})")
        return where.place

    def _anybody_waits(self) -> bool:
        return any(where.place is None for where in self._busy.values())

    def _placed(self) -> list[Report]:
        """Report where trials were placed since this was last asked."""
        reports = []
        for number, where in self._busy.items():
            if not where.reported and (place := self._locate(where)) is not None:
                where.heard, where.reported = time.monotonic(), True
                reports.append(Report(number, place=place))
        return reports

    def _overdue(self) -> list[Report]:
        limit, reports = self.job.config.trial_timeout, list[Report]()
        for number, where in list(self._busy.items()):
            silent = where.place is not None and where.pending is not None
            if limit and silent and time.monotonic() - where.heard > limit:
                self._forget(where)
                reports.append(Report(number, failure=f"hung: no epoch within {limit:.0f} seconds"))
        return reports


def _returned(message: dict[str, Any], what: str) -> Any:
    if "error" in message:
        raise from_plain(message["error"])
    if "failed" in message:
        raise failed(what, message["failed"])
    return message["called"]


def plugin_files(job: ExecutorJob) -> dict[str, bytes]:
    """Return the plugin files of a search by their paths, to travel as content."""
    return {path: Path(path).read_bytes() for path in job.config.plugins}
