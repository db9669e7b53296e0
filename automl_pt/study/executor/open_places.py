"""The open places of an executor, busy and free: how they are opened, asked, found, lost and closed.

A subclass says how its kind of cluster does each. All else is here, once: after a place was lost the next one is opened
elsewhere; what a closed place still sends is ignored, because its answers are forgotten with it; a wait is reported.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from automl_pt.core.errors import InstallationError
from automl_pt.study.executor.base import TrialSpec
from automl_pt.study.executor.messages import Place
from automl_pt.study.executor.versions import differences, other_versions

#: seconds after which a trial that waits for a place is reported to the user
PATIENCE = 3.0


class PlaceLost(Exception):  # noqa: N818  # no error: machines of a cluster go
    """A place is gone, through no fault of what it ran."""


class PlaceCrashed(Exception):  # noqa: N818  # the executor reports it as the crash of a trial
    """The process at a place has died, on a machine that lives."""


class GpuLost(Exception):  # noqa: N818  # a new place takes over
    """The process at a place cannot use its GPU again."""


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
    #: whether its versions have been compared
    compared: bool = False


class OpenPlaces(ABC):
    """Opens places, uses free ones again, and closes them."""

    def __init__(self) -> None:
        self._busy: dict[int, OpenPlace] = {}
        self._free: list[OpenPlace] = []
        self._lost: set[str] = set()
        self._said: list[str] = []
        #: the coordinator's versions, with which those of each place are compared before it runs anything
        self._versions: Mapping[str, str] = {}
        self._noted: set[str] = set()
        #: whether a trial has told anything: from then on a machine of other versions is refused, and ends no search
        self._has_begun = False

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

    # -- what is the same for all --------------------------------------------------------------------------------------

    def notices(self) -> Sequence[str]:
        """Return what the user should know, such as that a trial waits for a place: once where it is so for several."""
        said, self._said = self._said, []
        return list(dict.fromkeys(said))

    def _take_free(self) -> OpenPlace:
        """Return a place that runs nothing; open one where there is none."""
        for where in self._free:
            where.place = where.place or self.located(where.handle)
        free = [where for where in self._free if where.place is None or where.place.name not in self._lost]
        now = time.monotonic()
        if free:
            found = next((where for where in free if where.place is not None), free[0])
            self._free.remove(found)
            found.opened = now
            return found
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

    def _refusal(self, where: OpenPlace, versions: Mapping[str, str]) -> InstallationError | None:
        """Return why nothing may run at a place with these versions; a smaller difference is noted, once."""
        place = self._locate(where)
        machine = (place.name if place is not None else "") or "a machine"
        changing, noted = differences(self._versions, versions)
        for text in set(noted) - self._noted:
            self._said.append(f"{machine} has {text}: results may differ in their last digits")
        self._noted |= set(noted)
        if changing:
            return other_versions(machine, changing)
        where.compared = True
        return None

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
