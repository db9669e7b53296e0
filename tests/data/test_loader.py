from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_pt.data.device_split import StreamedSplit
from automl_pt.data.hashes import array_digest
from automl_pt.data.loader import Loader, batch_sizes
from automl_pt.data.pixels import Originals, Pixels, Rows, Undecoded
from automl_pt.data.policy import make_policy
from automl_pt.dataset import Hints
from automl_pt.images.decode import decode
from automl_pt.images.preprocessing import normalise, scale_and_offset
from automl_pt.plugins.manager import load_plugins

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
CPU = torch.device("cpu")


def pixels(count: int, side: int = 8) -> Pixels:
    """Make images whose every pixel is the image's index, so that a batch tells what it holds."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 3, side, side)).copy()
    return Pixels(images, np.arange(count) % 3, tuple(map(str, range(count))))


def loader(source: Pixels, batch_size: int, **options: object) -> Loader:
    settings = {"seed": 1, "device": CPU, "hints": Hints(), "augmented_epochs": 9, "shuffle": True, **options}
    return Loader(source, batch_size=batch_size, mean=MEAN, std=STD, **settings)  # type: ignore[arg-type]


def indices(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] * STD[0] + MEAN[0]) * 255).round().int().tolist()


@given(st.integers(1, 200), st.integers(1, 220))
def test_batch_sizes_cover_every_image_and_leave_no_single_one(count: int, batch_size: int) -> None:
    sizes = batch_sizes(count, batch_size)
    assert sum(sizes) == count
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] <= batch_size + 1
    assert sizes[-1] > 1 or batch_size == 1 or count == 1


@settings(max_examples=50)
@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 5), st.booleans())
def test_an_epoch_visits_each_image_once_for_any_batch_size(
    count: int, batch_size: int, epoch: int, shuffle: bool
) -> None:
    found = loader(pixels(count), batch_size, shuffle=shuffle)
    batches = list(found.epoch(epoch))
    assert [len(images) for images, _ in batches] == found.batch_sizes == [len(labels) for _, labels in batches]
    seen = [index for images, _ in batches for index in indices(images)]
    assert sorted(seen) == list(range(count))
    assert shuffle or seen == list(range(count))
    assert seen == found.plan(epoch).order.tolist()
    assert [label for _, labels in batches for label in labels.tolist()] == [index % 3 for index in seen]


@given(st.integers(2, 60), st.integers(1, 20), st.data())
def test_starting_late_gives_the_same_batches(count: int, batch_size: int, data: st.DataObject) -> None:
    whole = list(loader(pixels(count), batch_size).epoch(3))
    start = data.draw(st.integers(0, len(whole)))
    rest = list(loader(pixels(count), batch_size).epoch(3, start))
    assert len(rest) == len(whole) - start
    for ours, theirs in zip(rest, whole[start:], strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_hints_turn_augmentation_off() -> None:
    source = Pixels(np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8), np.zeros(9, np.int64), ())
    plain = normalise(torch.from_numpy(source.images), *scale_and_offset(MEAN, STD))
    for options in ({"augmented_epochs": 0}, {"hints": Hints(horizontal_flip=False, shift=False)}):
        (images, _), *_ = loader(source, 9, shuffle=False, **options).epoch(1)
        assert torch.equal(images, plain)
    (images, _), *_ = loader(source, 9, shuffle=False).epoch(1)
    assert not torch.equal(images, plain)


def test_epochs_after_the_augmented_ones_see_the_images_as_they_are() -> None:
    source = Pixels(np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8), np.zeros(9, np.int64), ())
    plain = normalise(torch.from_numpy(source.images), *scale_and_offset(MEAN, STD))
    found = loader(source, 9, shuffle=False, augmented_epochs=2)
    same = [torch.equal(next(iter(found.epoch(epoch)))[0], plain) for epoch in (1, 2, 3, 4)]
    assert same == [False, False, True, True]
    # an evaluation reads epoch 0
    assert torch.equal(next(iter(loader(source, 9, shuffle=False, augmented_epochs=0).epoch(0)))[0], plain)
    # the order is that of a run that is augmented throughout
    assert loader(source, 9, augmented_epochs=2).plan(3).order.tolist() == loader(source, 9).plan(3).order.tolist()


def test_both_layouts_hold_the_same_numbers() -> None:
    source = Pixels(
        np.random.default_rng(0).integers(0, 256, (9, 3, 16, 16), dtype=np.uint8), np.zeros(9, np.int64), ()
    )
    for augmented in (1, 0):
        (first, _), *_ = loader(source, 9, augmented_epochs=augmented).epoch(1)
        (second, _), *_ = loader(source, 9, augmented_epochs=augmented, channels_last=True).epoch(1)
        assert second.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(first, second)


def test_rows_and_images_decoded_anew_give_the_batches_of_an_array() -> None:
    arrays = list(np.random.default_rng(0).integers(0, 256, (11, 20, 24, 3), dtype=np.uint8))
    digests = [array_digest(array) for array in arrays]
    originals = Originals(arrays, list(map(str, range(11))), {digest: place for place, digest in enumerate(digests)})
    decoded = np.stack([decode(array, 16) for array in arrays])
    labels, names = np.arange(11), tuple(map(str, range(11)))
    rows = Rows(decoded[::-1].copy(), np.arange(11)[::-1].copy())
    anew = Undecoded(originals, digests, 16, threads=2)
    wanted = list(loader(Pixels(decoded, labels, names), 4).epoch(2))
    for images in (rows, anew):
        found = list(loader(Pixels(images, labels, names), 4).epoch(2))
        assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(found, wanted, strict=True))
        assert all(torch.equal(ours[1], theirs[1]) for ours, theirs in zip(found, wanted, strict=True))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("share", [(0, 1), (1, 2)])
def test_bytes_sent_to_a_device_give_the_batches_of_the_cpu(channels_last: bool, share: tuple[int, int]) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (23, 3, 16, 16), dtype=np.uint8)
    rows = np.random.default_rng(1).permutation(23)
    for images in (arrays, Rows(arrays, rows)):
        source = Pixels(images, np.arange(23) % 5, ())
        wanted = loader(source, 6, channels_last=channels_last, share=share)
        sent = loader(source, 6, channels_last=channels_last, share=share)
        options = {"mean": MEAN, "std": STD, "channels_last": channels_last}
        sent.streamed = StreamedSplit(images, source.labels, 6, CPU, **options)  # type: ignore[arg-type]
        for epoch, start in ((1, 0), (2, 2)):
            pairs = list(zip(sent.epoch(epoch, start), wanted.epoch(epoch, start), strict=True))
            assert pairs
            for (ours, labels), (theirs, wanted_labels) in pairs:
                assert ours.equal(theirs)
                assert labels.equal(wanted_labels)
                assert ours.is_contiguous(memory_format=torch.channels_last) is channels_last or ours.is_contiguous()


class FakeGpu:
    """Answers what a loader asks of a GPU: how much memory is free; and gives no pinned memory where told so."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, free: int = 1, pins: bool = True, copies: bool = True
    ) -> None:
        self.pinned = 0
        empty, tensor_to = torch.empty, torch.Tensor.to

        def fake_empty(*shape: Any, pin_memory: bool = False, device: Any = None, **options: Any) -> torch.Tensor:
            if pin_memory and not pins:
                raise RuntimeError("CUDA error: invalid argument\nmore")
            if device is not None and torch.device(device).type == "cuda" and not copies:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            self.pinned += pin_memory
            return empty(*shape, **options)

        def fake_to(tensor: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
            kept = [one for one in given if not (isinstance(one, torch.device) and one.type == "cuda")]
            return tensor_to(tensor, *kept, **options) if kept or not given else tensor

        def on_cpu(function: Any) -> Any:
            return lambda *given, device=None, **options: function(*given, **options)

        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 4 * free))
        monkeypatch.setattr(torch, "empty", fake_empty)
        monkeypatch.setattr(torch.Tensor, "to", fake_to)
        for name in ("zeros", "tensor", "arange"):
            monkeypatch.setattr(torch, name, on_cpu(getattr(torch, name)))
        monkeypatch.setattr(torch.cuda, "Event", MagicMock)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)


@pytest.mark.parametrize(
    ("gpu", "notes"),
    [
        ({}, ["more than the share of its memory"]),
        (
            {"pins": False},
            ["more than the share of its memory", "because none is pinned: CUDA error: invalid argument"],
        ),
        ({"free": 1 << 30, "copies": False}, ["it ran out of memory for"]),
        ({"free": 1 << 30}, []),
    ],
)
def test_a_gpu_without_room_or_pinned_memory_gives_the_same_batches_and_a_note(
    monkeypatch: pytest.MonkeyPatch, gpu: dict[str, Any], notes: list[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (23, 3, 8, 8), dtype=np.uint8)
    source = Pixels(images, np.arange(23), ())
    wanted = list(loader(source, 6).epoch(1))
    fake = FakeGpu(monkeypatch, **gpu)
    ours = loader(source, 6, device=torch.device("cuda", 0))
    assert len(ours.notes) == len(notes)
    assert all(part in note for part, note in zip(notes, ours.notes, strict=True))
    assert (ours.resident is None) == bool(notes)
    assert fake.pinned == (2 if notes and "pins" not in gpu else 0)
    for (found, labels), (theirs, wanted_labels) in zip(ours.epoch(1), wanted, strict=True):
        assert found.equal(theirs)
        assert labels.equal(wanted_labels)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "trivial", "crop+mixup"])
@pytest.mark.parametrize("free", [1, 1 << 30])
def test_a_gpu_augments_as_the_policy_says(monkeypatch: pytest.MonkeyPatch, name: str, free: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (23, 3, 8, 8), dtype=np.uint8)
    source = Pixels(images, np.arange(23) % 3, ())
    policy = make_policy(name, (), load_plugins(), 8, 3)
    options: dict[str, Any] = {"policy": policy, "augmented_epochs": 1, "balanced": True}
    wanted = [list(loader(source, 6, **options).epoch(epoch)) for epoch in (1, 2)]
    FakeGpu(monkeypatch, free=free)
    ours = loader(source, 6, device=torch.device("cuda", 0), **options)
    assert (ours.resident is None and ours.streamed is None) == bool(policy.transforms)
    assert any("the CPU changes each of them" in note for note in ours.notes) == bool(policy.transforms)
    for epoch, batches in enumerate(wanted, 1):
        for (found, labels), (theirs, wanted_labels) in zip(ours.epoch(epoch), batches, strict=True):
            assert found.equal(theirs)
            assert labels.equal(wanted_labels)


def test_leaving_an_epoch_early_ends_its_thread(tmp_path: Path) -> None:
    import threading

    arrays = list(np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8))
    digests = [array_digest(array) for array in arrays]
    originals = Originals(arrays, list(map(str, range(40))), {digest: place for place, digest in enumerate(digests)})
    source = Pixels(Undecoded(originals, digests, 8, threads=1), np.zeros(40, np.int64), ())
    before = threading.active_count()
    batches = loader(source, 4).epoch(1)
    next(iter(batches))
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_the_time_spent_waiting_is_added_up() -> None:
    found = loader(pixels(50), 10)
    assert found.wait_seconds == 0
    list(found.epoch(1))
    first = found.wait_seconds
    assert first > 0
    list(found.epoch(2))
    assert found.wait_seconds > first


@pytest.mark.gpu
def test_batches_made_on_the_device_are_those_of_the_cpu() -> None:
    source = Pixels(np.random.default_rng(0).integers(0, 256, (50, 3, 32, 32), dtype=np.uint8), np.arange(50), ())
    device = torch.device("cuda", 0)
    for channels_last in (False, True):
        ours = loader(source, 8, device=device, channels_last=channels_last)
        assert ours.resident is not None
        theirs = loader(source, 8)
        for (images, labels), (wanted, wanted_labels) in zip(ours.epoch(1), theirs.epoch(1), strict=True):
            assert torch.allclose(images.cpu(), wanted, atol=1e-6)
            assert torch.equal(labels.cpu(), wanted_labels)
            assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
