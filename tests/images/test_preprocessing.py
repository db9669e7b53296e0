from __future__ import annotations

from typing import Any

import pytest
import torch

from automl_pt.core.errors import InvalidModelDirectoryError
from automl_pt.images.preprocessing import Preprocessing

GOOD: dict[str, Any] = Preprocessing(64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)).to_dict()


def test_it_survives_its_own_dict() -> None:
    assert Preprocessing.from_dict(GOOD) == Preprocessing(64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"image_size": 10**9}, "image_size from 1 to 4096"),
        ({"image_size": 0}, "image_size from 1 to 4096"),
        ({"image_size": 64.0}, "image_size from 1 to 4096"),
        ({"image_size": True}, "image_size from 1 to 4096"),
        ({"mean": [0.1, 0.2]}, "mean of three finite numbers"),
        ({"mean": [0.1, 0.2, float("nan")]}, "mean of three finite numbers"),
        ({"mean": "abc"}, "mean of three finite numbers"),
        ({"std": [0.1, 0.2, 0.0]}, "std of three finite numbers above 0"),
        ({"std": [0.1, 0.2, float("inf")]}, "std of three finite numbers above 0"),
        ({"std": None}, "std of three finite numbers above 0"),
        ({"rule": "other"}, "the rule 'rgb-"),
        ({"extra": 1}, "the keys image_size, mean, std and rule"),
    ],
)
def test_a_hostile_dict_is_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidModelDirectoryError, match=rule) as caught:
        Preprocessing.from_dict({**GOOD, **change})
    assert "train the model again" in caught.value.remedy


@pytest.mark.parametrize("values", [None, [], "text", 3])
def test_what_is_no_dict_is_refused(values: object) -> None:
    with pytest.raises(InvalidModelDirectoryError, match="the keys"):
        Preprocessing.from_dict(values)


@pytest.mark.parametrize("side", [1, 7, 64, 224])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalising_is_the_textbook_formula_in_either_layout(side: int, layout: torch.memory_format) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = torch.randint(0, 256, (5, 3, side, side), dtype=torch.uint8).contiguous(memory_format=layout)
    result = Preprocessing(side, mean, std).normalise(images)
    wanted = (images.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert result.dtype == torch.float32
    assert (result - wanted).abs().max() < 1e-6
    if side > 1:
        assert result.is_contiguous(memory_format=layout)
