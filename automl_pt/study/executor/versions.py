"""Compares the versions at a remote place with the coordinator's, because other versions give other results."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

from automl_pt.core import __version__
from automl_pt.core.errors import InstallationError
from automl_pt.core.installation import installed_version
from automl_pt.study.executor.base import ExecutorJob

#: packages that decide results, beside automl-pt and the plugins in use
DECIDING = ("torch", "torchvision", "timm")
#: what is worth a notice alone: the coordinator has split the images and chooses the settings, and the rest is torch's
NOTED = ("Python", "numpy")
_MISSING = "not installed"


def plugin_packages(job: ExecutorJob) -> list[str]:
    """Return the distributions of the plugins in use, but those of plugin files, which travel as content."""
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.plugins.sources import BUILTIN_ORIGIN

    loaded = load_plugins(job.config.plugins).loaded
    return sorted({plugin.origin for plugin in loaded if plugin.version and plugin.origin != BUILTIN_ORIGIN})


def versions_here(packages: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions on this machine, by the names of the packages; imports none of them."""
    python = ".".join(platform.python_version_tuple()[:2])
    named = {name: installed_version(name) for name in (*DECIDING, "numpy", *packages)}
    return {"Python": python, "automl-pt": __version__, **named}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the differences that change results, and those to be noted, each with the package and both versions.

    Builds of one version, such as torch 2.11.0+cpu and 2.11.0+cu128, are noted: the coordinator needs no GPU.
    """
    found: tuple[list[str], list[str]] = ([], [])
    for name in dict.fromkeys([*here, *there]):
        ours, theirs = here.get(name, _MISSING), there.get(name, _MISSING)
        if ours != theirs:
            is_noted = name in NOTED or ours.partition("+")[0] == theirs.partition("+")[0]
            found[is_noted].append(f"{name} {theirs}, here {ours}")
    return found


def other_versions(machine: str, changing: Sequence[str]) -> InstallationError:
    """Return the error about a place whose versions change results."""
    return InstallationError(
        f"{machine} has other versions than the coordinator, which changes results",
        given="; ".join(changing),
        remedy="install the same versions on all machines, such as by one container image",
    )
