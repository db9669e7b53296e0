"""What people call the parts of a data set, in folders or columns: train, dev, seg_test, val2017, holdout, fold_1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple
from unicodedata import normalize

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import few
from automl_pt.dataset import Split

#: "either" is said of validation as well as of test images; a fold is a part for cross-validation
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
#: words beside it that say nothing of their own
GENERIC = frozenset(_GENERIC_TEXT.split())
#: in the place of the word in what is around it
_GAP = "*"
_PIECES = re.compile(r"\d+|[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_READINGS = "where {names} could be validation or test images, the name must say which"


class Meaning(NamedTuple):
    """What a name says: which part of a data set, and the words around that; none where the name is certain."""

    kind: Kind
    around: tuple[str, ...]


@lru_cache(maxsize=4096)
def meaning(name: str) -> Meaning | None:
    """Return what a name says of a part of a data set; None where it holds no such word, or two."""
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
    """Return which part of a data set a name stands for by itself; None where it does not, or not for certain."""
    found = meaning(name)
    return found.kind if found is not None and not found.around else None


def split_named(name: str) -> Split | None:
    """Return the split that a name stands for; None where it stands for none, or not for certain."""
    kind = certain(name)
    return kind if kind in ("train", "val", "test") else None


def together(names: Iterable[str]) -> dict[str, Kind]:
    """Return which part each name stands for, as far as that is certain.

    Names with further words, as seg_train and seg_test, are when these are the same in all and one is for training.
    """
    found = {name: said for name in names if (said := meaning(name)) is not None}
    kinds = {name: said.kind for name, said in found.items() if not said.around}
    for around in {said.around for said in found.values() if said.around}:
        alike = {name: said.kind for name, said in found.items() if said.around == around}
        if "train" in alike.values() and len(set(alike.values())) == len(alike) > 1:
            kinds |= alike
    return kinds


def resolved(kinds: Mapping[str, Kind], where: str) -> dict[str, Split]:
    """Return the split of each name; raise InvalidDatasetError where one could be validation or test.

    Such a name is what is missing of the two where just one is.
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
            remedy="call the images for validation val, and those for the final measurement test",
        )
    return splits | dict.fromkeys(either, missing[0]) if either else splits


def _pieces(name: str) -> Iterable[str]:
    """Yield the words and numbers of a name in small letters, with "trainset" and "holdOut" as people mean them."""
    plain = _CAMEL.sub(" ", normalize("NFKC", name)).casefold()
    plain = re.sub(r"\b(hold|held)[\W_]*out\b", "holdout", plain)
    for piece in _PIECES.findall(plain):
        first = next((word for word in _LONGEST if piece.startswith(word) and piece[len(word) :] in GENERIC), None)
        yield from (piece,) if first is None else (first, piece[len(first) :])


_LONGEST = sorted(_KINDS, key=len, reverse=True)


def _fold_of_split(pieces: list[str]) -> Meaning | None:
    """Take split_0 and the like for a fold."""
    kinds = {"number" if piece.isdigit() else piece for piece in pieces}
    return Meaning("fold", ()) if kinds in ({"split", "number"}, {"cv", "number"}) else None
