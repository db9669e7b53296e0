from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_pt.api.search import steps
from automl_pt.config import SearchConfig
from automl_pt.data.memory import available_memory
from automl_pt.study import events
from automl_pt.study.executor.devices import places_for
from automl_pt.study.space.batch_sizes import CUT, BatchSizeCandidates, StepMemory, batch_size_candidates
from automl_pt.training.memory import BACKWARD, SHARE, WEIGHTS, step_memory

#: 10 MB for the weights, 1 MB for an image
STEP = StepMemory(10_000_000, 1_000_000.0)
WHY = "a step of {} images needs about {} MB, and each worker has {} MB"


def sizes(free: int, *backbones: StepMemory, images: int = 10_000, **settings: Any) -> BatchSizeCandidates:
    return batch_size_candidates(settings.get("batch_sizes"), 5, images, backbones or (STEP,), free)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (0, (8, 16, 32, 64, 128, 256)),  # unknown
        (266_000_000, (8, 16, 32, 64, 128, 256)),
        (265_999_999, (8, 16, 32, 64, 128)),
        (26_000_000, (8, 16)),
        (25_999_999, (8,)),
        (1, (8,)),
    ],
)
def test_sizes_that_do_not_fit_are_not_offered(free: int, expected: tuple[int, ...]) -> None:
    assert sizes(free).sizes == expected


def test_it_is_said_which_sizes_are_left_out_and_why() -> None:
    assert sizes(266_000_000).notice is None
    assert sizes(80_000_000).notice == (
        f"not searched: batch sizes 128, 256, because {WHY.format(128, '138.0', '80.0')}; "
        "--batch-size searches them anyway"
    )
    assert sizes(1_000_000).notice == f"8 is the only batch size, because {WHY.format(8, '18.0', '1.0')}; {CUT}"


def test_sizes_that_were_asked_for_are_kept_in_micro_batches() -> None:
    asked = sizes(80_000_000, batch_sizes=(256, 64))
    assert asked == BatchSizeCandidates((64, 256), f"batch size 256: {WHY.format(256, '266.0', '80.0')}; {CUT}")
    assert sizes(80_000_000, batch_sizes=(8, 64)) == BatchSizeCandidates((8, 64))


def test_a_study_that_has_grown_keeps_its_sizes_and_says_which_do_not_fit_the_newcomer() -> None:
    known = (8, 16, 256)
    assert batch_size_candidates(None, 5, 10_000, (STEP,), 80_000_000, known) == BatchSizeCandidates(known)
    grown = batch_size_candidates(None, 5, 10_000, (STEP,), 80_000_000, known, has_grown=True)
    assert grown == BatchSizeCandidates(known, f"batch size 256: {WHY.format(256, '266.0', '80.0')}; {CUT}")


def test_the_greediest_backbone_and_the_data_count_too() -> None:
    assert sizes(80_000_000, StepMemory(0, 1.0), STEP).sizes == (8, 16, 32, 64)
    assert sizes(80_000_000, images=320).sizes == (8, 16)
    assert sizes(10**12) == BatchSizeCandidates((8, 16, 32, 64, 128, 256))


def test_a_study_offers_what_it_was_begun_with() -> None:
    assert batch_size_candidates(None, 5, 10_000, (STEP,), 1, known=[8, 256]) == BatchSizeCandidates((8, 256))
    assert batch_size_candidates((32,), 5, 10_000, (STEP,), 0, known=[8, 256]) == BatchSizeCandidates((32,))


@pytest.mark.parametrize("half", [False, True])
def test_a_step_grows_with_its_images_from_what_the_weights_take(half: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 1000, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1000, 3))
    fixed, per_image = step_memory(model, 10, half=half)
    weights = 4 * (3 * 1000 * 9 + 1000 + 1000 * 3 + 3)
    assert WEIGHTS * weights <= SHARE * fixed < (WEIGHTS + BACKWARD) * weights
    # of each image: what the convolution gives, kept once by ReLU and the pooling after it, and little else
    kept = BACKWARD * 1000 * 8 * 8 * (2 if half else 4)
    assert kept <= SHARE * per_image < 1.1 * kept
    assert not torch.is_autocast_enabled("cpu")


def test_workers_share_their_devices_memory() -> None:
    one, four = places_for(["cpu"])[0].memory, places_for(["cpu"] * 4)[0].memory
    assert 4 * four == pytest.approx(one, rel=0.2)  # others use memory, too
    assert places_for(["mps"])[0].memory == 0


PLUGIN = """
import torch
from torch import nn
from automl_pt import Backbone, hookimpl

class Keep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images):
        ctx.save_for_backward(torch.empty(len(images) * {size}, dtype=torch.uint8))  # never touched: costs nothing
        return images.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient

class Hungry(nn.Module):
    def forward(self, images):
        return Keep.apply(images) if self.training else images

def build(num_classes, pretrained):
    return nn.Sequential(nn.Conv2d(3, 1, 3), Hungry(), nn.Flatten(), nn.Linear(36, num_classes))

@hookimpl
def register_backbones():
    return [Backbone("hungry", build, image_size=8)]
"""


def test_a_search_leaves_out_what_its_device_cannot_hold_and_goes_on_with_that(tmp_path: Path) -> None:
    def search(size: int, trials: int) -> list[events.Event]:
        (tmp_path / "hungry.py").write_text(PLUGIN.format(size=size))
        config = SearchConfig(
            dataset="digits",
            backbones=("hungry",),
            plugins=(str(tmp_path / "hungry.py"),),
            epochs=5,
            trials=trials,
            workers=0,
            report=False,
            threads=1,
        )
        return list(steps(config, tmp_path / "study"))

    def notices(told: list[events.Event]) -> list[str]:
        texts = (event.text for event in told if isinstance(event, events.Notice))
        return [text for text in texts if not text.startswith("batch sizes above")]  # said of few images

    first = search(available_memory() // 50, 1)  # of 32 images 1.2 times what is free, of 16 half of that
    assert notices(first)[0].startswith("not searched: batch size 32, because a step of 32 images needs about ")
    again = search(1, 6)  # the same study with memory to spare
    assert notices(again) == []
    last = again[-1]
    assert isinstance(last, events.Finished)
    assert max(trial.params["batch_size"] for trial in last.result.trials) <= 16
