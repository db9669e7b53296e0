"""What a plugin registers as an executor: a name for `--engine`, and how the executor is made."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from automl_pt.core.errors import InstallationError
from automl_pt.core.installation import how_to_install, packages_of


@dataclass(frozen=True)
class ExecutorFactory:
    """An executor that `--engine NAME` chooses.

    `make(job)` receives an `automl_pt.study.executor.base.ExecutorJob` and returns what meets the protocol there. A
    text "package.module:function" names a function that is imported when the executor is chosen, and no earlier.
    """

    name: str
    make: Callable[[Any], Any] | str
    description: str = ""

    def _how_to_install(self, error: ModuleNotFoundError) -> str:
        if packages_of(self.name):
            return how_to_install(self.name)
        return f"install the package with the module {error.name!r}, which the documentation of its plugin names"

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
                remedy=f"{self._how_to_install(error)}, or remove --engine",
            ) from None
        return getattr(found, function)(job)
