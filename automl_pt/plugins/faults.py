"""Attributes errors to plugins: an error from a plugin's own code is reported as the plugin's."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from automl_pt.core.errors import AutomlError, DeviceLostError, PluginError
from automl_pt.core.installation import explain
from automl_pt.core.out_of_memory import is_device_lost, is_out_of_memory

#: the files of PyTorch that call a network's own code
_PASSES = re.compile(r"torch[/\\](nn[/\\]modules[/\\]module|autograd[/\\](graph|function|__init__))\.py$")


@contextmanager
def plugins_fault(what: str, *, whose: str, remedy: str = "correct the plugin, or leave it out") -> Iterator[None]:
    """Convert errors of the block into a PluginError that says `what` happened in `whose` code.

    Our own errors and exhausted memory pass unchanged. SystemExit is converted, because it would end the command
    silently.
    """
    try:
        yield
    except AutomlError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        if is_device_lost(error):
            raise DeviceLostError(error) from error
        raise explain(error) or PluginError(what, given=f"{whose}: {described(error)}", remedy=remedy) from error


def networks_fault(error: Exception | SystemExit, name: str) -> AutomlError | None:
    """Return the error to raise instead of one from the passes of the network `name`; None for any other.

    Our own errors, exhausted memory, and errors of the program's own code are not converted. A GPU that is lost to
    this process is a DeviceLostError wherever that was noticed.
    """
    if is_device_lost(error):
        return DeviceLostError(error)
    if isinstance(error, AutomlError) or is_out_of_memory(error) or not (_arose_in_passes(error)):
        return None
    return PluginError(
        f"the network of {name} failed while it was trained or run",
        given=described(error),
        remedy="correct the plugin, or choose another backbone; `automl-pt --traceback ...` shows where it failed",
    )


def _arose_in_passes(error: BaseException) -> bool:
    """Return whether the error comes from a module's forward or backward pass, or is a SystemExit."""
    if isinstance(error, SystemExit):
        return True
    frames = traceback.walk_tb(error.__traceback__)
    return any(_PASSES.search(frame.f_code.co_filename) for frame, _ in frames)


def described(error: BaseException) -> str:
    """Return an exception's type and text; for SystemExit also its effect."""
    text = " ".join(str(error).split())[:500] or "no message"
    if isinstance(error, SystemExit):
        return f"SystemExit({text}), which ends the whole program"
    return f"{type(error).__name__}: {text}"
