"""The versions of what a trial's result depends on, compared by name between machines."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

from automl_pt.core import __version__
from automl_pt.core.installation import installed_version

#: packages that decide results, beside the plugins in use
DECIDING = ("torch", "torchvision", "timm", "numpy")


def versions_here(packages: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions on this machine, by the names of the packages; imports none of them."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {
        "Python": python,
        "automl-pt": __version__,
        **{name: installed_version(name) for name in (*DECIDING, *packages)},
    }


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Say of each package whose version there is not the one here what both are."""
    names = dict.fromkeys([*here, *there])
    return [
        f"{name} {there.get(name, 'not installed')}, here {here.get(name, 'not installed')}"
        for name in names
        if here.get(name, "not installed") != there.get(name, "not installed")
    ]
