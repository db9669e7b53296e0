"""Recognises errors of other packages that mean a broken installation, and explains them."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from automl_pt.core.errors import AutomlError, InstallationError

#: messages of torchvision, or of its library's loader, when it was built for another torch
_MISMATCH = re.compile(
    r"operator torchvision::\w+ does not exist|undefined symbol: \S*(?:torch|c10|at)\S*|lib(?:torch|c10)\w*\.so"
)
_NO_KERNEL = re.compile(r"no kernel image is available|CUDA driver version is insufficient", re.IGNORECASE)


def explain(error: BaseException) -> InstallationError | None:
    """Return the installation error behind `error` or one of its causes; None if it is not about the installation."""
    for link in _chain(error):
        if isinstance(link, InstallationError):
            return link
        found = _mismatch(link) or _missing(link) or _no_kernel(link)
        if found is not None:
            return found
    return None


def torch_for_torchvision() -> str | None:
    """Return the version of torch that the installed torchvision requires, or None if it is not stated."""
    for requirement in requires("torchvision") or ():
        if exact := re.match(r"torch\s*\(?==\s*([^\s;)]+)", requirement):
            return exact[1]
    return None


def installed_version(package: str) -> str:
    """Return a package's version, or "not installed", without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def how_to_install(extra: str) -> str:
    """Return the command that installs the packages of an extra of automl-pt.

    It names these packages, because automl-pt itself is on no package index: `pip install automl-pt[EXTRA]` fails.
    """
    packages = " ".join(f'"{name}"' for name in packages_of(extra))
    return f"`pip install {packages}`" if packages else f"`pip install '.[{extra}]'` in the checkout of automl-pt"


def packages_of(extra: str) -> list[str]:
    """Return the requirements of an extra of automl-pt; empty if there is no such extra."""
    try:
        entries = [entry.partition(";") for entry in requires("automl-pt") or ()]
    except PackageNotFoundError:  # a checkout on the path that is not installed
        return []
    named = re.compile(rf"""extra == ['"]{re.escape(extra)}['"]""")
    return [name.strip() for name, _, rule in entries if named.search(rule)]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and not any(link is other for other in seen):
        seen.append(link)
        yield link
        link = link.__cause__ or link.__context__


def _mismatch(error: BaseException) -> InstallationError | None:
    match = _MISMATCH.search(str(error)) if isinstance(error, RuntimeError | ImportError | OSError) else None
    if match is None:
        return None
    wanted = torch_for_torchvision() if installed_version("torchvision") != "not installed" else None
    built_for = f", which was built for torch {wanted}" if wanted else ""
    return InstallationError(
        "torch and torchvision are builds that do not match",
        given=f"torch {installed_version('torch')} and torchvision {installed_version('torchvision')}{built_for}: "
        f"{match[0]}",
        remedy="install both together: `pip install --force-reinstall torch torchvision` (with uv: "
        "`uv pip install --reinstall torch torchvision`), from the same --index-url if you use one",
    )


def _missing(error: BaseException) -> InstallationError | None:
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    package = _packages().get(name)
    if package is None:
        return None
    return InstallationError(
        "a package that automl-pt depends on is not installed",
        given=f"no module named {name!r}",
        remedy=f"`pip install {package}`, or reinstall automl-pt",
    )


def _no_kernel(error: BaseException) -> InstallationError | None:
    match = _NO_KERNEL.search(str(error)) if isinstance(error, RuntimeError) else None
    if match is None:
        return None
    return InstallationError(
        "torch was not built for the GPU and the driver of this machine",
        given=f"torch {installed_version('torch')}: {match[0]}",
        remedy="install the torch build for your CUDA version, update the driver, or use `--device cpu`",
    )


def _packages() -> dict[str, str]:
    """Map module names to the required and optional distributions that provide them."""
    renamed = {"PIL": "pillow", "sklearn": "scikit-learn"}
    same = ("click", "imagehash", "numpy", "optuna", "pluggy", "psycopg", "pyarrow", "pydantic", "pymysql", "rich")
    more = ("safetensors", "timm", "torch", "torchvision")
    return {**renamed, **{name: name for name in (*same, *more)}}


#: the remedy for each limit
FILES = "raise the limit on open files, as with `ulimit -n 1024` before the command, or use fewer --workers"
PROCESSES = "raise the limit on processes and threads, as with `ulimit -u 4096`, or use fewer --workers"


def exhausted(error: BaseException) -> AutomlError | None:
    """Return an error about open files, processes or threads if `error` or one of its causes is one; else None."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and not any(link is other for other in seen):
        remedy = _remedy(link)
        if remedy is not None:
            return AutomlError("a limit of the system was reached", given=str(link), remedy=remedy)
        seen.append(link)
        link = link.__cause__ or link.__context__
    return None


def _remedy(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return FILES
    if isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN:
        return PROCESSES
    return PROCESSES if isinstance(error, RuntimeError) and "can't start new thread" in str(error) else None
