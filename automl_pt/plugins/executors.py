"""What a plugin registers as an executor: a name for `--engine`, and how the executor is made."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from automl_pt.core.errors import InstallationError


@dataclass(frozen=True)
class ExecutorFactory:
    """An executor that `--engine NAME` chooses.

    `make(job)` receives an `automl_pt.study.executor.base.ExecutorJob` and returns what meets the protocol there. A
    text "package.module:function" names a function that is imported when the executor is chosen, and no earlier.
    """

    name: str
    make: Callable[[Any], Any] | str
    description: str = ""

    def made(self, job: Any) -> Any:
        """Return the executor for a search."""
        try:
            if not isinstance(self.make, str):
                return self.make(job)
            module, _, function = self.make.partition(":")
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise InstallationError(
                f"the executor {self.name!r} needs a package that is not installed",
                given=str(error),
                remedy=f'`pip install "automl-pt[{self.name}]"`, or leave out --engine',
            ) from None
        return getattr(found, function)(job)
