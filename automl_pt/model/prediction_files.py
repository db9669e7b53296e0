r"""Writes predictions as CSV, JSON Lines or parquet, chosen by the ending.

Columns: `path`, `class`, `probability`, `error` (why a file could not be read; the others are then empty), then,
if the model has a rule for unsure answers, `unsure` (why the answer is unsure; empty if it is sure), `candidates` (the
likely classes) and `novelty` (the distance from known images; above 1 is unlike them), then `p:NAME` for each class;
with `top` instead `class_2`, `probability_2`, ... up to `top`. In CSV a `'` stands before
a text that a spreadsheet would evaluate as a formula: at the start of a text cell, and after a semicolon, tab, bar or
line break within it, which separate cells in other programs and locales. JSON Lines and parquet hold the text
unchanged. Bytes of a file name that are not UTF-8 are written as \udcXX.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from automl_pt.core.errors import InstallationError, UsageError
from automl_pt.core.files import atomic_file, to_json
from automl_pt.core.installation import how_to_install
from automl_pt.core.text import printable

if TYPE_CHECKING:
    from automl_pt.model.predict import Prediction

ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet")
#: where a cell may begin: at the start, and after characters that separate cells in some locale; there, also after
#: blanks and quotes, the characters that make a spreadsheet evaluate a cell, including full-width ones
FORMULA = re.compile(r"""(\A|[;\t|\r\n\0])(?=[\s"']*[=+\-@＝＋－＠])""")  # noqa: RUF001  # full-width on purpose
#: characters that never start a cell
UNSEEN = tuple("\t\r\n\0")
#: of a model with a rule for unsure answers; JSON Lines have them too, with the candidates as a list
UNSURE_COLUMNS = ("unsure", "candidates", "novelty")
#: candidates that a cell names
MAX_CANDIDATES = 10
#: rows per group of a parquet file
_GROUP = 4096


class Writer(Protocol):
    """Writes predictions one by one."""

    def write(self, prediction: Prediction) -> None:
        """Write one row."""

    def close(self) -> None:
        """Write buffered rows."""


@dataclass(frozen=True)
class PredictionColumns:
    """The columns of a row, for `classes` in the order of the probabilities; `top` None means one column per class.

    With `unsure` there are the three columns on unsure answers.
    """

    classes: Sequence[str]
    top: int | None = None
    unsure: bool = False

    def names(self) -> list[str]:
        """Return the column names; names of classes occur only after `p:`."""
        fixed = ["path", "class", "probability", "error", *(UNSURE_COLUMNS if self.unsure else ())]
        if self.top is None:
            return fixed + [f"p:{name}" for name in self.classes]
        places = range(2, self.top + 1)
        return fixed + [name for place in places for name in (f"class_{place}", f"probability_{place}")]

    def best(self, prediction: Prediction) -> list[tuple[str, float]]:
        """Return the likeliest classes with their probabilities; of equal ones the first in the order of classes."""
        assert prediction.probabilities is not None
        ranks = prediction.probabilities if prediction.logits is None else prediction.logits
        order = np.argsort(-ranks, kind="stable")[: self.top or 1]
        return [(self.classes[index], float(prediction.probabilities[index])) for index in order]

    def values(self, prediction: Prediction) -> list[Any]:
        """Return one row's values; None for missing ones."""
        path = str(prediction.path)
        if prediction.probabilities is None:
            return [path, None, None, prediction.error, *([None] * (len(self.names()) - 4))]
        (name, probability), *others = self.best(prediction)
        rest = prediction.probabilities.tolist() if self.top is None else [value for pair in others for value in pair]
        return [path, name, probability, None, *self._unsure_values(prediction), *rest]

    def _unsure_values(self, prediction: Prediction) -> list[Any]:
        if not self.unsure:
            return []
        assert prediction.answer is not None
        names = [self.classes[index] for index in prediction.answer.candidates[:MAX_CANDIDATES]]
        names += ["..."] if len(prediction.answer.candidates) > MAX_CANDIDATES else []
        return [prediction.answer.unsure, "; ".join(names), prediction.answer.novelty]

    def as_object(self, prediction: Prediction) -> dict[str, Any]:
        """Return one row as JSON: the probability of each class, or with `top` the likeliest ones."""
        path, name, probability, error = self.values(prediction)[:4]
        row: dict[str, Any] = {"path": path, "class": name, "probability": probability, "error": error}
        if prediction.probabilities is None:
            return row
        if self.unsure and prediction.answer is not None:
            names = [self.classes[index] for index in prediction.answer.candidates]
            row |= {"unsure": prediction.answer.unsure, "candidates": names, "novelty": prediction.answer.novelty}
        if self.top is None:
            return {**row, "probabilities": dict(zip(self.classes, prediction.probabilities.tolist(), strict=True))}
        return {**row, "top": [{"class": name, "probability": value} for name, value in self.best(prediction)]}


class CsvWriter:
    """Writes CSV in UTF-8; with `to_terminal`, control characters are escaped."""

    def __init__(self, stream: BinaryIO, columns: PredictionColumns, *, to_terminal: bool = False) -> None:
        self.stream, self.columns = stream, columns
        self.show: Callable[[str], str] = printable if to_terminal else str
        self.rows = csv.writer(self, lineterminator="\n")
        self.names = len(columns.names())
        self.rows.writerow([self.cell(name) for name in columns.names()])

    def cell(self, value: Any) -> str:
        """Return a value's text: numbers with six digits, text so that no spreadsheet evaluates it as a formula."""
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:.6g}"
        text = FORMULA.sub(r"\1'", value)
        return self.show(f"'{text}" if text.startswith(UNSEEN) else text)

    def write(self, prediction: Prediction | str) -> None:
        """Write one row; a given text, which comes from the csv module, is written through."""
        if isinstance(prediction, str):
            self.stream.write(prediction.encode("utf-8", "backslashreplace"))
        else:
            self.rows.writerow([self.cell(value) for value in self.columns.values(prediction)])

    def close(self) -> None:
        """Do nothing, because no row is buffered."""


class JsonWriter:
    """Writes one JSON object per line, in ASCII; `probabilities` maps classes to numbers, `top` lists the likeliest."""

    def __init__(self, stream: BinaryIO, columns: PredictionColumns) -> None:
        self.stream, self.columns = stream, columns

    def write(self, prediction: Prediction) -> None:
        """Write one row."""
        self.stream.write(f"{to_json(self.columns.as_object(prediction))}\n".encode())

    def close(self) -> None:
        """Do nothing, because no row is buffered."""


class ParquetWriter:
    """Writes parquet, some thousand rows at a time; probabilities are float32."""

    def __init__(self, stream: BinaryIO, columns: PredictionColumns) -> None:
        pyarrow, parquet = _pyarrow()
        self.columns, self.rows, self.pyarrow = columns, list[list[Any]](), pyarrow
        text = (
            "path",
            "class",
            "error",
            "unsure",
            "candidates",
            *(f"class_{place}" for place in range(2, (columns.top or 1) + 1)),
        )
        kinds = [pyarrow.string() if name in text else pyarrow.float32() for name in columns.names()]
        self.schema = pyarrow.schema(list(zip(map(_utf8, columns.names()), kinds, strict=True)))
        self.file = parquet.ParquetWriter(stream, self.schema)

    def write(self, prediction: Prediction) -> None:
        """Add one row; write a group when it is full."""
        values = self.columns.values(prediction)
        self.rows.append([_utf8(value) if isinstance(value, str) else value for value in values])
        if len(self.rows) >= _GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows as one group."""
        pairs = zip(zip(*self.rows, strict=True), self.schema, strict=True)
        arrays = [self.pyarrow.array(values, field.type) for values, field in pairs]
        self.file.write_table(self.pyarrow.Table.from_arrays(arrays, schema=self.schema))
        self.rows.clear()

    def close(self) -> None:
        """Write the buffered rows, and the file's end."""
        if self.rows:
            self.flush()
        self.file.close()


def check_output(path: Path, *, force: bool) -> None:
    """Raise UsageError, before any work, for an unknown ending or an existing file."""
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(
            "the output file's ending is unknown",
            given=printable(path),
            remedy="use .csv, .jsonl or .parquet",
        )
    if path.is_dir() or (path.exists() and not force):
        raise UsageError(
            "the output file exists already",
            given=f"{printable(path)} is {'a folder' if path.is_dir() else 'there already'}",
            remedy="choose another name" if path.is_dir() else "choose another name, or give --force",
        )
    if path.suffix.lower() == ".parquet":
        _pyarrow()


@contextmanager
def open_file(path: Path, columns: PredictionColumns) -> Iterator[Writer]:
    """Yield a writer of the format of the ending; `path` is created, complete, when the block ends without an error.

    Raises OutputError if it cannot be written.
    """
    with atomic_file(path) as stream:
        kinds = {".csv": CsvWriter, ".parquet": ParquetWriter}
        writer: Writer = kinds.get(path.suffix.lower(), JsonWriter)(stream, columns)
        yield writer
        writer.close()


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InstallationError(
            "writing parquet requires pyarrow",
            given=str(error),
            remedy=f"{how_to_install('parquet')}, or write CSV",
        ) from error
    return pyarrow, parquet
