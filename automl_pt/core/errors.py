"""All errors that automl-pt raises on purpose, with their exit codes on the command line.

    AutomlError                        1
    ├── UsageError                     2   the request itself is wrong
    │   ├── ConfigError                    settings out of range, unknown or contradictory; lists all of them
    │   └── UnknownNameError               no backbone, dataset or study of that name; suggests near ones
    ├── DatasetError
    │   ├── NotLabeledDatasetError         images without class folders or a label column
    │   └── InvalidDatasetError            labelled, but not usable: categories differ, unreadable images, ...
    ├── InvalidModelDirectoryError         not a model directory of this toolkit, nor a backbone's name
    ├── WeightsError                       pretrained weights are absent, damaged or do not fit
    ├── PluginError                        a plugin that cannot be imported or breaks a hook's contract
    ├── DeviceError                        the requested device does not exist
    │   └── DeviceLostError                    the GPU failed, and this process cannot use it again
    │       └── RecordingError                     a failed CUDA graph left the process unusable
    ├── CheckpointError                    no intact checkpoint to resume from, or one of another run
    ├── StudyError                         the study cannot be resumed as requested
    ├── StorageError                       the study's storage cannot be opened, read or written
    ├── DivergedError                  a training's loss was not finite; raised by the command line only
    ├── ExportError                        a model cannot be exported, or its export computes something else
    ├── PeerError                          another process of a distributed run failed
    ├── OutputError                        a file cannot be written: no space, read-only, in use
    │   └── NoLocksError                       the file system has no locks between processes
    └── InstallationError                  installed packages do not fit together or are missing

Every message has three parts: what is wrong in this case, what was given, what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence

from automl_pt.core.likeness import did_you_mean


class AutomlError(Exception):
    """Base of all errors raised on purpose: `rule` names the fault, `given` the input, `remedy` what to do next."""

    exit_code = 1

    def __init__(self, rule: str, *, given: str, remedy: str) -> None:
        self.rule, self.given, self.remedy = rule, given, remedy
        super().__init__(f"{rule}\n  given: {given}\n  next:  {remedy}")

    def in_a_line(self) -> str:
        """Return all three parts in one line, for a note beside a result that is still valid."""
        given = " ".join(part.strip() for part in self.given.splitlines() if part.strip())
        return f"{self.rule}: {given}; {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.rule, self.given, self.remedy)


def _rebuild(kind: type[AutomlError], rule: str, given: str, remedy: str) -> AutomlError:
    """Rebuild an error in another process, without calling its subclass's own constructor."""
    error = kind.__new__(kind)
    AutomlError.__init__(error, rule, given=given, remedy=remedy)
    return error


class UsageError(AutomlError):
    """The request itself is wrong; nothing has started."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more settings are out of range, unknown or contradict each other; all are listed."""

    def __init__(self, mistakes: Sequence[str], *, source: str = "settings") -> None:
        self.mistakes = tuple(mistakes)
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__(
            f"{source}: {count}",
            given="".join(f"\n    - {mistake}" for mistake in self.mistakes),
            remedy="correct them; `automl-pt train --help` and `automl-pt search --help` list every setting",
        )


class UnknownNameError(UsageError):
    """No `kind` is registered as `name`; similar names among `known` are suggested."""

    def __init__(self, kind: str, name: str, known: Sequence[str], *, remedy: str, rule: str | None = None) -> None:
        hint = did_you_mean(name, known)
        remedy = f"{hint} {remedy}" if hint else remedy
        super().__init__(rule or f"unknown {kind} {name!r}", given=repr(name), remedy=remedy)


class DatasetError(AutomlError):
    """Base of the errors about data."""


class NotLabeledDatasetError(DatasetError):
    """Training and validation need labelled images: class folders, or a table with a label column."""


class InvalidDatasetError(DatasetError):
    """The data are labelled, but cannot be trained on unchanged."""


class InvalidModelDirectoryError(AutomlError):
    """The path or name given as a model is not a model directory, is damaged, or is not a known backbone."""


class WeightsError(AutomlError):
    """Pretrained weights are not available, damaged, of an unsafe format, or do not fit the backbone."""


class PluginError(AutomlError):
    """A plugin cannot be imported, implements an unknown hook, or returns a value that the hook does not allow."""


class DeviceError(AutomlError):
    """The requested device does not exist."""


class DeviceLostError(DeviceError):
    """The GPU reported an error after which this process cannot use it; a new process can."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            "the GPU reported an error that ends its use by this process",
            given=str(error).strip().splitlines()[0],
            remedy="run the same command again: it resumes from its last checkpoint; if the error returns, `--device "
            "cpu` or CUDA_LAUNCH_BLOCKING=1 shows which operation fails",
        )


class RecordingError(DeviceLostError):
    """A CUDA graph could not be recorded, after which PyTorch before 2.12 cannot use the GPU in this process."""


class CheckpointError(AutomlError):
    """No checkpoint is intact, or the checkpoint belongs to a run with other settings."""


class StudyError(AutomlError):
    """A study cannot be resumed as requested, because results would not be comparable or files have changed."""


class StorageError(AutomlError):
    """The storage of a study cannot be opened, read or written, or would run code when read."""


class PeerError(AutomlError):
    """Another process of a distributed run has ended, and this one cannot continue without it."""


class DivergedError(AutomlError):
    """A training ended because its loss was not finite. From Python, the last result's `reason` says so instead."""


class ExportError(AutomlError):
    """A model cannot be exported, or its export computes other logits."""


class OutputError(AutomlError):
    """A file or folder cannot be written: no space left, read-only, or in use."""


class NoLocksError(OutputError):
    """A file cannot be locked, because its file system has no locks or its lock server does not answer."""


class InstallationError(AutomlError):
    """Installed packages are missing or incompatible."""
