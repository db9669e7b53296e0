"""Whose fault an error is: what a plugin's own code raises is told as the plugin's, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from automl_pt.errors import AutomlError, PluginError
from automl_pt.installation import explain
from automl_pt.training.out_of_memory import is_out_of_memory


@contextmanager
def plugins_fault(what: str, *, whose: str, remedy: str = "correct the plugin, or leave it out") -> Iterator[None]:
    """Turn what the block raises into a PluginError that says `what` happened to `whose` code.

    Errors of ours and exhausted memory pass. SystemExit, which would end the command without a word, does not.
    """
    try:
        yield
    except AutomlError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise explain(error) or PluginError(what, given=f"{whose}: {described(error)}", remedy=remedy) from error


def described(error: BaseException) -> str:
    """Return an exception's type and text; of SystemExit what it would have done."""
    text = " ".join(str(error).split())[:500] or "no message"
    if isinstance(error, SystemExit):
        return f"SystemExit({text}), which ends the whole program"
    return f"{type(error).__name__}: {text}"
