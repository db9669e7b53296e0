from __future__ import annotations

import pytest

from automl_pt.text import counted


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 trials"), (1, "1 trial"), (2, "2 trials"), (1 / 3, "0.33 trials"), (1000, "1000 trials")],
)
def test_one_is_singular(number: float, text: str) -> None:
    assert counted(number, "trial") == text
