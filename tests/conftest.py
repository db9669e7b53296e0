"""Fixtures that several test files share. Images are drawn, so that nothing needs a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins

CLASSES = ("blue", "green", "red")


def draw_image(label: int, index: int, side: int = 16) -> Image.Image:
    """Draw a noisy square of the class's colour: easy to learn, no two alike."""
    noise = np.random.default_rng([label, index]).integers(0, 90, (side, side, 3), dtype=np.uint8)
    noise[..., 2 - label] += 120
    return Image.fromarray(noise)


def write_folder(root: Path, counts: dict[str, int], side: int = 16) -> Path:
    """Write `counts[split]` PNG images of each class under `root/split/class`."""
    for split, count in counts.items():
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                draw_image(label, index + 1000 * len(split), side).save(folder / f"{index:03}.png")
    return root


def noise_files(folder: Path, count: int, side: int = 20) -> list[Path]:
    """Write `count` PNG files of noise, no two alike; return them in order of their names."""
    folder.mkdir(parents=True)
    files = [folder / f"{index:03}.png" for index in range(count)]
    for index, path in enumerate(files):
        draw_image(index % 3, index, side).save(path)
    return files


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one CPU thread: two of them wait for each other, spinning, when the machine has other work."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for subprocesses
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what the tests decode and hash out of the user's cache folder; what timm lists may come from there."""
    from automl_pt.core.files import cache_folder

    folder = tmp_path_factory.mktemp("cache")
    for path in sorted(cache_folder().glob("timm-*.json")):
        (folder / path.name).write_bytes(path.read_bytes())
    os.environ["AUTOML_PT_CACHE"] = str(folder)


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """Return a folder with train/val/test splits of three classes: 8, 4 and 4 drawn images each, 16 px."""
    return write_folder(tmp_path / "tiny", {"train": 8, "val": 4, "test": 4})


@pytest.fixture
def runner() -> CliRunner:
    """Return a runner for click commands."""
    return CliRunner()


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a finished search over hostile names: `images`, and `studies/hostile`."""
    from hostile import search_hostile

    return search_hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    """Return plugins with the tiny network."""
    from tiny import load_tiny

    return load_tiny(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(autouse=True)
def no_width_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the width of the terminal that the tests run in: workers of pytest-xdist get it as COLUMNS."""
    monkeypatch.delenv("COLUMNS", raising=False)
