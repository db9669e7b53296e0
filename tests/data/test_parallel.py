from __future__ import annotations

import threading

import pytest
import torch

from automl_pt.data.parallel import AHEAD, in_order, one_torch_thread


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order(threads: int) -> None:
    assert list(in_order(lambda item: item * item, range(50), threads=threads)) == [item * item for item in range(50)]


def test_items_are_taken_a_few_ahead_only() -> None:
    taken: list[int] = []
    results = in_order(lambda item: item, (taken.append(item) or item for item in range(1000)), threads=2)
    assert next(results) == 0
    assert len(taken) <= 2 * AHEAD + 1
    results.close()  # type: ignore[attr-defined]


def test_an_error_arrives_at_its_items_turn_and_leaves_no_thread() -> None:
    before = threading.active_count()
    results = in_order(lambda item: 1 // (item - 2), range(10), threads=2)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threading.active_count() == before


def test_torch_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    with one_torch_thread():
        assert list(in_order(lambda _: torch.get_num_threads(), range(3), threads=2)) == [1, 1, 1]
    assert torch.get_num_threads() == before
