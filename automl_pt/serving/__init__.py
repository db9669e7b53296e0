"""Serves a finished model over HTTP: an endpoint and a page, by default on this machine only."""

from __future__ import annotations

from automl_pt.core.errors import InstallationError
from automl_pt.core.installation import how_to_install


def require_packages() -> None:
    """Raise InstallationError if packages of the extra `serve` are missing."""
    try:
        import python_multipart  # noqa: F401  # only whether it is there
        import starlette  # noqa: F401  # only whether it is there
        import uvicorn  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise InstallationError(
            "serving requires starlette, uvicorn and python-multipart",
            given=str(error),
            remedy=f"{how_to_install('serve')}, or use `automl-pt predict`",
        ) from error
