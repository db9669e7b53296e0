"""timm's models keep the contract: a seeded sample with one of every family, and, by night, all of them."""

from __future__ import annotations

import random

import pytest

from automl_pt.builtin.figures import Figures, table
from automl_pt.plugins.manager import load_plugins
from automl_pt.testing import check_backbone

#: of the sample's models: what a single core checks in less than a minute
MOST_PARAMETERS, MOST_GFLOPS = 12_000_000, 3.0
#: a family whose cheapest model takes more is left to the night
MOST_OF_A_FAMILY = 45.0
SEED = 7


def by_family() -> dict[str, dict[str, Figures]]:
    """Return timm's architectures by family (timm's own module), at the size each was measured at first."""
    found: dict[str, dict[str, Figures]] = {}
    for key, figures in sorted(table().items()):
        name = key.partition("@")[0]
        if name.startswith("timm/"):
            found.setdefault(figures.family, {}).setdefault(name, figures)
    return found


def sample() -> list[str]:
    """Draw one model of each family among those within the bounds, else take the family's cheapest, if it is cheap."""
    chosen = []
    for family, models in sorted(by_family().items()):
        small = [n for n, f in models.items() if f.parameters <= MOST_PARAMETERS and f.gflops <= MOST_GFLOPS]
        cheapest = min(models, key=lambda name: models[name].gflops)
        if small:
            chosen.append(random.Random(f"{SEED} {family}").choice(small))
        elif models[cheapest].gflops <= MOST_OF_A_FAMILY:
            chosen.append(cheapest)
    return chosen


def marked(names: list[str], mark: pytest.MarkDecorator) -> list[object]:
    return [pytest.param(name, marks=mark) for name in names]


def test_the_sample_is_drawn_over_all_families():
    names = sample()
    assert len(names) == len(set(names)) >= 60
    assert len(by_family()) - len(names) <= 6


@pytest.mark.parametrize("name", marked(sample(), pytest.mark.slow))
def test_a_sample_of_timm(name):
    check_backbone(load_plugins().backbone(name))


@pytest.mark.parametrize("name", marked([n for m in by_family().values() for n in sorted(m)], pytest.mark.nightly))
def test_all_of_timm(name):
    check_backbone(load_plugins().backbone(name))
