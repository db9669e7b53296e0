from pathlib import Path

import numpy as np
import pytest

from automl_pt.plugins.manager import load_plugins
from automl_pt.testing import check_dataset


def load(count):
    return load_plugins().dataset("synthetic").load(Path(str(count)))


def test_it_keeps_the_contract():
    check_dataset("synthetic")
    check_dataset("synthetic", root=Path("12"))


def test_as_many_images_as_asked_for_at_no_cost():
    data = load(10_000_000)
    assert len(data) == len(data.images) == 10_000_000
    assert data.images[9_999_999].shape == (32, 32)


@pytest.mark.parametrize("index", range(4))
def test_the_brightest_quarter_is_the_class(index):
    image = load(8).images[index].astype(int)
    quarters = [image[16 * (q // 2) :, 16 * (q % 2) :][:16, :16].mean() for q in range(4)]
    assert int(np.argmax(quarters)) == load(8).labels[index]
