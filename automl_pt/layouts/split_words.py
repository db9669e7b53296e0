"""Recognises usual names of dataset parts, of folders or in columns: train, dev, seg_test, val2017, fold_1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple
from unicodedata import normalize

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import few
from automl_pt.dataset import Split

#: "either" means validation or test images; a fold is a part for cross-validation
Kind = Literal["train", "val", "test", "either", "fold", "unlabelled"]

_WORDS: dict[Kind, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "devel", "development"),
    "test": ("test", "testing", "tst"),
    "either": ("eval", "evaluation", "evaluate", "holdout", "heldout"),
    "fold": ("fold", "folds", "kfold"),
    "unlabelled": ("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled"),
}
_KINDS: dict[str, Kind] = {word: kind for kind, words in _WORDS.items() for word in words}
_GENERIC_TEXT = (
    "set sets data dataset datasets image images img imgs pic pics picture pictures photo photos split splits folder "
    "folders dir file files sample samples example examples subset part partition jpg jpeg png labeled labelled "
    "the of for my"
)
#: neutral words that may stand beside it
GENERIC = frozenset(_GENERIC_TEXT.split())
#: placeholder of the split's word within the words around it
_GAP = "*"
_PIECES = re.compile(r"\d+|[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_READINGS = "{names} could be validation or test images"


class Meaning(NamedTuple):
    """The dataset part that a name states, and the words around it; without words if the name is certain."""

    kind: Kind
    around: tuple[str, ...]


@lru_cache(maxsize=4096)
def meaning(name: str) -> Meaning | None:
    """Return the dataset part in a name; None if it holds no such word, or two."""
    pieces = list(_pieces(name))
    found = [(place, _KINDS[piece]) for place, piece in enumerate(pieces) if piece in _KINDS]
    if len(found) != 1:
        return _fold_of_split(pieces)
    (place, kind), numbered = found[0], any(piece.isdigit() for piece in pieces)
    if kind == "fold":
        return Meaning("fold", ()) if numbered else None
    pieces[place] = _GAP
    around = tuple(piece for piece in pieces if not piece.isdigit() and piece not in GENERIC)
    return Meaning(kind, () if around == (_GAP,) else around)


def certain(name: str) -> Kind | None:
    """Return the dataset part that a name means on its own; None if it means none, or is not certain."""
    found = meaning(name)
    return found.kind if found is not None and not found.around else None


def split_named(name: str) -> Split | None:
    """Return the split that a name means; None if it means none, or is not certain."""
    kind = certain(name)
    return kind if kind in ("train", "val", "test") else None


def together(names: Iterable[str]) -> dict[str, Kind]:
    """Return the dataset part that each name means, as far as that is certain.

    Names with further words, such as seg_train and seg_test, are certain if these words are equal and one is for
    training.
    """
    found = {name: part for name in names if (part := meaning(name)) is not None}
    kinds = {name: part.kind for name, part in found.items() if not part.around}
    for around in {part.around for part in found.values() if part.around}:
        alike = {name: part.kind for name, part in found.items() if part.around == around}
        if "train" in alike.values() and len(set(alike.values())) == len(alike) > 1:
            kinds |= alike
    return kinds


def resolved(kinds: Mapping[str, Kind], where: str) -> dict[str, Split]:
    """Return the split of each name; raise InvalidDatasetError if one could be validation or test.

    If exactly one of validation and test is missing, such a name means the missing one.
    """
    splits: dict[str, Split] = {}
    for name, kind in kinds.items():
        if kind in ("train", "val", "test"):
            splits[name] = kind
    either = [name for name, kind in kinds.items() if kind == "either"]
    missing: list[Split] = [split for split in ("val", "test") if split not in splits.values()]
    if either and (len({name.casefold() for name in either}), len(missing)) != (1, 1):
        raise InvalidDatasetError(
            _READINGS.format(names=few(map(repr, either))),
            given=f"{where}: {few(map(repr, kinds))}",
            remedy="rename the images for validation to val, and those for the final measurement to test",
        )
    return splits | dict.fromkeys(either, missing[0]) if either else splits


def _pieces(name: str) -> Iterable[str]:
    """Yield the words and numbers of a name in lower case, splitting words such as "trainset" and "holdOut"."""
    plain = _CAMEL.sub(" ", normalize("NFKC", name)).casefold()
    plain = re.sub(r"\b(hold|held)[\W_]*out\b", "holdout", plain)
    for piece in _PIECES.findall(plain):
        first = next((word for word in _LONGEST if piece.startswith(word) and piece[len(word) :] in GENERIC), None)
        yield from (piece,) if first is None else (first, piece[len(first) :])


_LONGEST = sorted(_KINDS, key=len, reverse=True)


def _fold_of_split(pieces: list[str]) -> Meaning | None:
    """Interpret split_0 and similar names as folds."""
    kinds = {"number" if piece.isdigit() else piece for piece in pieces}
    return Meaning("fold", ()) if kinds in ({"split", "number"}, {"cv", "number"}) else None
