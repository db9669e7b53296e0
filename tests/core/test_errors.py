from __future__ import annotations

import errno
import inspect
import pickle

import pytest

from automl_pt.core import errors
from automl_pt.core.errors import AutomlError, ConfigError, InvalidDatasetError, UnknownNameError
from automl_pt.core.installation import exhausted
from automl_pt.core.likeness import similar


def test_a_message_has_rule_given_and_remedy() -> None:
    error = InvalidDatasetError("a rule", given="a value", remedy="a step")
    assert str(error) == "a rule\n  given: a value\n  next:  a step"
    assert error.in_a_line() == "a rule: a value; a step"
    assert ConfigError(["a: wrong", "b: wrong"]).in_a_line().count("\n") == 0


def test_unknown_names_come_with_near_ones() -> None:
    error = UnknownNameError("backbone", "resnet81", ["resnet18", "vit_tiny"], remedy="list them")
    assert "did you mean 'resnet18'? list them" in str(error)
    assert "did you mean" not in str(UnknownNameError("backbone", "zzz", ["resnet18"], remedy="list them"))


@pytest.mark.parametrize("error", [ConfigError(["a", "b"]), UnknownNameError("x", "a", ["ab"], remedy="r")])
def test_errors_cross_processes(error: AutomlError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.exit_code) == (str(error), 2)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, AutomlError)]
    assert len(classes) > 10
    lines = (errors.__doc__ or "").splitlines()
    drawn = {
        line.split("── ")[-1].split()[0] for line in lines if "Error" in line and (("──" in line) or "Automl" in line)
    }
    assert {item.__name__ for item in classes} == drawn


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n 1024"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u 4096"),
        (RuntimeError("can't start new thread"), "ulimit -u 4096"),
    ],
)
def test_a_limit_of_the_system_is_named_with_what_raises_it(error: Exception, remedy: str) -> None:
    outer = ValueError("what came of it")
    outer.__cause__ = error
    found = exhausted(outer)
    assert found is not None
    assert remedy in found.remedy
    assert found.given == str(error)


def test_other_errors_are_no_limits() -> None:
    assert exhausted(OSError(errno.ENOENT, "gone")) is None
    assert exhausted(RuntimeError("x")) is None


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("resnt18", ["resnet101", "resnet152", "resnet18"], ["resnet18"]),
        ("RESNET18", ["resnet101", "resnet18"], ["resnet18"]),
        ("photo", ["Photos", "photos", "photos-old", "notes"], ["photos", "Photos"]),
        ("lite", ["lite0", "lite1", "lite2", "lite3"], ["lite0", "lite1", "lite2"]),
        ("weight-decay", ["weight_decay", "decay"], ["weight_decay"]),
        ("zzz", ["resnet18"], []),
        ("", ["resnet18"], []),
    ],
)
def test_similar_names_are_ordered_by_likeness(name: str, known: list[str], near: list[str]) -> None:
    assert similar(name, known) == near
    assert similar(name, reversed(known)) == near
