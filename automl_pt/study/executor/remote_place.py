"""What runs at a remote place: one trial at a time, in a folder of its own disk. Plain values and files come and go."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from automl_pt.core.errors import AutomlError, DeviceLostError
from automl_pt.core.files import atomic_write
from automl_pt.core.out_of_memory import is_device_lost
from automl_pt.data.by_content import write_pool
from automl_pt.plugins.faults import described
from automl_pt.study.executor.base import Caller, TrialSpec
from automl_pt.study.executor.calls import returned
from automl_pt.study.executor.failures import failure_of
from automl_pt.study.executor.inline import InlineEngine
from automl_pt.study.executor.messages import Message, StudyFailed, error_as_plain, message_as_plain
from automl_pt.study.executor.run_files import FolderCopy, write_files
from automl_pt.study.executor.versions import versions_here
from automl_pt.study.executor.worker import load

#: folders of a study that no called function needs
NOT_FOR_CALLS = ("checkpoints", "logs")


class RemotePlace:
    """One trial at a time, as `executor/mirrored.py` asks for it; `stop` may be called while a step runs.

    `trial` names the function that makes a trial's iterator. `files` are the plugin files, by their paths on the
    coordinator's machine; `cache` is the folder for decoded images that the places of a machine share.
    """

    def __init__(
        self, trial: str, work: str, cache: str, files: Mapping[str, bytes], device: str, threads: int
    ) -> None:
        self._work, self._device, self._threads = Path(work), device, threads
        self._files = {path: self._keep(path, content) for path, content in files.items()}
        self._stopping = threading.Event()
        self._cache = cache
        # only trials of images need more than their own folder
        self._missing = getattr(importlib.import_module(trial.partition(":")[0]), "missing_files", None)
        self._inner = InlineEngine(load(trial), self._stopping.is_set)
        self._number, self._copy = 0, FolderCopy(self._work)

    def versions(self, packages: list[str]) -> dict[str, str]:
        """Return the versions of what decides results here, and of `packages`."""
        return versions_here(packages)

    def start(self, spec: dict[str, Any], manifest: bytes, files: dict[str, bytes | None]) -> dict[str, Any]:
        """Begin or resume a trial from its files; return what its first step gave."""
        self._number = int(spec["number"])
        output = self._work / "trials" / str(self._number)
        shutil.rmtree(output, ignore_errors=True)  # what another start left here is not what the coordinator has
        write_files(output, files)
        self._copy = FolderCopy(output)
        self._copy.changes()
        here = {"output": str(output), "manifest": self._keep("manifest.json", manifest), "by_content": True}
        trial = TrialSpec.from_plain({**spec, **here, "config": self._at_home(spec["config"])})
        missing = self._missing(trial) if self._missing is not None else []
        if missing:
            return {"told": [], "files": {}, "missing": missing}
        self._inner.start(trial)
        return self.step()

    def keep_pool(self, name: str, content: bytes) -> None:
        """Keep a file of decoded images, for all places of this machine."""
        write_pool(name, content, self._cache)

    def resume(self, next_rung: float) -> dict[str, Any]:
        """Resume the waiting trial until `next_rung`; return what the next step gave."""
        self._inner.resume(self._number, next_rung)
        return self.step()

    def step(self) -> dict[str, Any]:
        """Return what the next step gave, and the files that changed with it."""
        told = [message_as_plain(_crashed_if_lost(message)) for message in self._inner.wait(0)]
        return {"told": told, "files": self._copy.changes()}

    def pause(self) -> dict[str, Any]:
        """Leave the held trial."""
        self._inner.pause(self._number)
        return {"told": [], "files": self._copy.changes()}

    def stop(self) -> None:
        """Let the running step save and end."""
        self._stopping.set()

    def call(
        self, function: str, arguments: dict[str, Any], folder: str, files: dict[str, bytes | None]
    ) -> dict[str, Any]:
        """Call a function; `files` are of the study's folder, which is at `folder` on the coordinator's machine."""
        self._stopping.clear()
        study = self._work / "study"
        write_files(study, files)
        copy, told = FolderCopy(study, NOT_FOR_CALLS), list[str]()
        copy.changes()
        given = self._at_home(arguments)
        given = _moved(given, folder, str(study)) if folder else given
        place = {"device": self._device, "threads": self._threads}
        try:
            found = load(function)(**given, **place, caller=Caller(told.append, should_stop=self._stopping.is_set))
            if isinstance(found, Generator):
                found = returned(found, told.append)
            answer: dict[str, Any] = {"called": _moved(found, str(study), folder) if folder else found}
        except (Exception, SystemExit) as error:
            if isinstance(error, DeviceLostError) or is_device_lost(error):
                answer = {"crash": described(error)}
            elif isinstance(error, AutomlError):
                answer = {"error": error_as_plain(error)}
            else:
                answer = {"failed": described(error)}
        return {**answer, "said": told, "files": copy.changes()}

    def _at_home(self, values: Any) -> Any:
        """Return settings with the paths, device and threads of this place."""
        if isinstance(values, dict):
            place = {"device": self._device, "threads": self._threads, "cache_dir": self._cache}
            own = place if "plugins" in values else {}
            return {key: self._at_home(value) for key, value in {**values, **own}.items()}
        if isinstance(values, list | tuple):
            return [self._at_home(value) for value in values]
        return self._files.get(values, values) if isinstance(values, str) else values

    def _keep(self, path: str, content: bytes) -> str:
        """Write a file that travelled as content; the same content has the same path, so that it is loaded once."""
        target = self._work / "files" / hashlib.sha256(content).hexdigest()[:16] / Path(path).name
        if not target.exists():
            atomic_write(target, content)
        return str(target)


def _crashed_if_lost(message: Message) -> Message:
    """Return the crash of a trial whose process lost its GPU, because a new place resumes it; others as they are."""
    match message:
        case StudyFailed(number, DeviceLostError() as error):
            return failure_of(number, error)
        case _:
            return message


def _moved(values: Any, old: str, new: str) -> Any:
    """Replace the folder `old` by `new` in every path among plain values."""
    if isinstance(values, dict):
        return {key: _moved(value, old, new) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_moved(value, old, new) for value in values]
    if isinstance(values, str) and (values == old or values.startswith(old + os.sep)):
        return new + values[len(old) :]
    return values
