"""Distinguishes errors that end one trial from those that every other trial would raise too."""

from __future__ import annotations

import re

from automl_pt.config import SHARED, TrainConfig
from automl_pt.core.errors import (
    AutomlError,
    CheckpointError,
    ConfigError,
    DeviceLostError,
    PluginError,
    RecordingError,
)
from automl_pt.core.out_of_memory import is_device_lost, is_out_of_memory
from automl_pt.study.executor.messages import StudyFailed, TrialCrashed, TrialFailed

OUT_OF_MEMORY = "out of memory"


def failure_of(number: int, error: Exception | SystemExit) -> TrialFailed | TrialCrashed | StudyFailed:
    """Convert a trial's exception into a message.

    An error of ours about shared settings, data, weights, devices or the disk does not depend on what is searched: the
    study fails with it. Exhausted memory, a batch size that does not fit, a damaged checkpoint, a
    plugin's fault (other trials may have another backbone) and everything unforeseen belong to the trial alone. A GPU
    that is lost to the process counts as the process's crash: the trial resumes in a new one.
    """
    if isinstance(error, DeviceLostError) or is_device_lost(error):
        lost = error if isinstance(error, DeviceLostError) else DeviceLostError(error)
        what = "a CUDA graph could not be recorded" if isinstance(error, RecordingError) else "its GPU failed"
        return TrialCrashed(number, f"{what} ({lost.given})")
    if isinstance(error, AutomlError) and not _belongs_to_the_trial(error):
        return StudyFailed(number, error)
    if is_out_of_memory(error):
        return TrialFailed(number, OUT_OF_MEMORY)
    text = (error.in_a_line() if isinstance(error, AutomlError) else str(error).strip()) or "no message"
    return TrialFailed(number, f"{type(error).__name__}: {text}"[:2000])


def _belongs_to_the_trial(error: AutomlError) -> bool:
    if isinstance(error, ConfigError):
        return all(_setting(mistake) in TrainConfig.model_fields.keys() - SHARED for mistake in error.mistakes)
    return isinstance(error, CheckpointError | PluginError)


def _setting(mistake: str) -> str:
    """Return the setting that a mistake begins with."""
    found = re.match(r"\w+", mistake)
    return found[0] if found else ""
