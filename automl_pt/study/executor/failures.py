"""Distinguishes errors that end one trial from those that every other trial would raise too."""

from __future__ import annotations

import re

from automl_pt.config import SHARED, TrainConfig
from automl_pt.core.errors import AutomlError, CheckpointError, ConfigError, PluginError
from automl_pt.core.out_of_memory import is_out_of_memory
from automl_pt.study.executor.base import Report

OUT_OF_MEMORY = "out of memory"


def report_failure(number: int, error: Exception | SystemExit) -> Report:
    """Convert a trial's exception into a report.

    An error of ours about shared settings, data, weights, devices or the disk does not depend on what is searched: it
    is fatal, and the study ends with it. Exhausted memory, a batch size that does not fit, a damaged checkpoint, a
    plugin's fault (other trials may have another backbone) and everything unforeseen belong to the trial alone.
    """
    if isinstance(error, AutomlError) and not _belongs_to_the_trial(error):
        return Report(number, fatal=error)
    if is_out_of_memory(error):
        return Report(number, failure=OUT_OF_MEMORY)
    text = (error.in_a_line() if isinstance(error, AutomlError) else str(error).strip()) or "no message"
    return Report(number, failure=f"{type(error).__name__}: {text}"[:2000])


def _belongs_to_the_trial(error: AutomlError) -> bool:
    if isinstance(error, ConfigError):
        return all(_setting(mistake) in TrainConfig.model_fields.keys() - SHARED for mistake in error.mistakes)
    return isinstance(error, CheckpointError | PluginError)


def _setting(mistake: str) -> str:
    """Return the setting that a mistake begins with."""
    found = re.match(r"\w+", mistake)
    return found[0] if found else ""
