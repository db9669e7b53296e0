"""The hooks a plugin may implement. Each returns values; none is told anything about who asks."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from automl_pt.backbone import Backbone, Catalogue
from automl_pt.dataset import Dataset

#: the entry-point group, and the name plugins mark their hooks for
GROUP = "automl_pt"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_backbones() -> Iterable[Backbone | Catalogue]:
    """Return the backbones this plugin offers; a zoo that is slow to import may return a Catalogue."""
    raise AssertionError("a specification is not called")


@hookspec
def register_datasets() -> Iterable[Dataset]:
    """Return the datasets this plugin offers."""
    raise AssertionError("a specification is not called")
