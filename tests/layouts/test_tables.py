from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from automl_pt.core.errors import (
    AutomlError,
    ConfigError,
    InstallationError,
    InvalidDatasetError,
    NotLabeledDatasetError,
)
from automl_pt.dataset import LabeledImages
from automl_pt.layouts.columns import TableColumns
from automl_pt.layouts.layouts import open_path
from automl_pt.layouts.tables import open_table


def write(root: Path, text: str, name: str = "t.csv", encoding: str = "utf-8") -> Path:
    """Write a table with images beside it: x/1.png, x/2.png and y/3.png."""
    for image in ("x/1.png", "x/2.png", "y/3.png"):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(b"an image, never decoded here")
    (root / name).write_bytes(text.encode(encoding))
    return root / name


def told(data: LabeledImages) -> list[tuple[str, str]]:
    assert data.names is not None
    return [(name, data.classes[label]) for name, label in zip(data.names, data.labels, strict=True)]


PLAIN = [("x/1.png", "cat"), ("x/2.png", "dog"), ("y/3.png", "cat")]
BODY = "x/1.png,cat\nx/2.png,dog\ny/3.png,cat\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label\n" + BODY, "utf-8"),
        ("path,label\n" + BODY, "utf-8-sig"),
        ("Image_Path,Class Name\r\n" + BODY.replace("\n", "\r\n"), "utf-8"),
        (("path,label\n" + BODY).replace(",", ";"), "utf-8"),
        (("path,label\n" + BODY).replace(",", "\t"), "utf-8"),
        ("n,file,label\n" + "".join(f"{n},{line}\n" for n, line in enumerate(BODY.split())), "utf-8"),
        ("a,b\n" + BODY, "utf-8"),
        ("path,label\n\n" + BODY.replace(",", " , ") + "\n,\n", "utf-8"),
        ('path,label,note\n"x/1.png",cat,"two\nlines"\nx/2.png,dog,\ny/3.png,cat,"a ""quote"""\n', "utf-8"),
        ("path,label\n./x/1.png,cat\nx/../x/2.png,dog\ny//3.png,cat\n", "utf-8"),
    ],
)
def test_csv_as_people_write_it(tmp_path: Path, text: str, encoding: str) -> None:
    data = open_path(write(tmp_path, text, encoding=encoding))
    assert told(data) == PLAIN
    assert (data.root, data.classes) == (tmp_path, ("cat", "dog"))
    assert list(data.images) == [tmp_path / name for name, _ in PLAIN]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet

    path = write(tmp_path, "", "t.parquet")
    columns = {"file_name": ["y/3.png", "x/1.png", "x/2.png"], "target": [7, 7, 12], "raw": [b"\xff"] * 3}
    parquet.write_table(pyarrow.table(columns), path)
    assert told(open_path(path)) == [("x/1.png", "7"), ("x/2.png", "12"), ("y/3.png", "7")]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidDatasetError, match="the table is not readable"):
        open_path(path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InstallationError, match='pip install "pyarrow>='):
        open_path(write(tmp_path, "", "t.parquet"))


def test_columns_are_guessed_and_said(tmp_path: Path) -> None:
    text = "path,label,split,group\nx/1.png,a,Train,p\nx/2.png,b,valid,q\ny/3.png,a,,\n"
    data = open_path(write(tmp_path, text))
    assert data.notes[0] == "columns guessed: image 'path', label 'label', split 'split', group 'group'"
    assert data.notes[1:] == (
        "1 row with nothing in column 'split': used for training, or for a split that the table lacks",
    )
    assert list(data.splits or ()) == ["train", "val", None]
    assert list(data.groups or ()) == ["group:p", "group:q", "name:y/3.png"]


def test_columns_as_named_win(tmp_path: Path) -> None:
    text = "path,label,truth,when,who\nx/1.png,?,a,train,p\nx/2.png,?,b,test,p\n"
    data = open_path(
        write(tmp_path, text), image_column="path", label_column="truth", split_column="when", group_column="who"
    )
    assert data.classes == ("a", "b")
    assert list(data.splits or ()) == ["train", "test"]
    assert data.notes[0].startswith("columns as named: ")


def test_only_what_was_not_named_is_called_guessed(tmp_path: Path) -> None:
    data = open_path(write(tmp_path, "path,truth,other\nx/1.png,a,1\nx/2.png,b,2\n"), label_column="truth")
    assert data.notes == ("columns guessed: image 'path'", "columns as named: label 'truth'")


def test_a_column_called_set_that_holds_no_splits_is_no_split_column(tmp_path: Path) -> None:
    data = open_path(write(tmp_path, "path,label,set\nx/1.png,a,7\nx/2.png,b,8\n"))
    assert data.splits is None


def test_a_pattern_groups_a_table_too(tmp_path: Path) -> None:
    data = open_path(write(tmp_path, "path,label\n" + BODY), group_by="^[xy]")
    assert list(data.groups or ()) == ["group:x", "group:x", "group:y"]


def test_an_absolute_path_is_taken_within_the_folder_only(tmp_path: Path) -> None:
    data = open_path(write(tmp_path, f"path,label\n{tmp_path}/x/1.png,a\nx/2.png,b\n"))
    assert data.names == ("x/1.png", "x/2.png")


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "x/../../t.png", "https://host/1.png", "file:///etc/passwd", "link.png"]
)
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    table = write(tmp_path / "in", f"path,label\nx/1.png,a\n{path},b\n")
    os.symlink("/etc/passwd", tmp_path / "in/link.png")
    with pytest.raises(InvalidDatasetError, match="outside its own folder") as caught:
        open_path(table)
    assert "line 3" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("path,label\n", InvalidDatasetError, "no row"),
        ("", InvalidDatasetError, "the column of paths is unclear"),
        ("a,b,c\nx/1.png,1,2\n", NotLabeledDatasetError, "the column of labels is unclear"),
        ("path\nx/1.png\n", NotLabeledDatasetError, "name it with --label-column"),
        ("a,label\n1,2\n", InvalidDatasetError, "name it with --image-column"),
        ("path,path\nx/1.png,b\n", InvalidDatasetError, "path twice"),
        ("path,label\nx/1.png,\nx/2.png,\n", NotLabeledDatasetError, "nothing in column 'label'"),
        ("path,label\nx/1.png,a\nx/2.png,\n,b\n", InvalidDatasetError, "2 rows without, in lines 3, 4"),
        ("path,label\nx/1.png,a,b\n", InvalidDatasetError, "line 2: 3 cells, but the header has 2"),
        ('path,label\nx/1.png,"a\nb"\nx/2.png\n', InvalidDatasetError, "line 4: 1 cells"),
        ('path,label\nx/1.png,"a\n', InvalidDatasetError, "line 2: .*correct the quotes"),
        ("path,label\nx/1.png,a\nx/9.png,b\n", InvalidDatasetError, r"1 of 2 do not: x/9.png \(line 3\)"),
        ("path,label\nx/1.png,a\nx/1.png,b\n", InvalidDatasetError, "lines 2 and 3: x/1.png with two"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, kind: type[AutomlError], message: str) -> None:
    import re

    with pytest.raises(kind, match=re.compile(message, re.DOTALL)):
        open_path(write(tmp_path, text))


def test_a_split_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="line 3: 'spare', 1 row in all"):
        open_table(write(tmp_path, "path,label,s\nx/1.png,a,train\nx/2.png,b,spare\n"), TableColumns(split="s"))


def test_bytes_that_are_no_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="line 3: not UTF-8 text"):
        open_path(write(tmp_path, "path,label\nx/1.png,a\nx/2.png,é\n", encoding="latin-1"))


def test_a_row_that_repeats_an_image_counts_once(tmp_path: Path) -> None:
    data = open_path(write(tmp_path, "path,label\n" + BODY + "./x/1.png,cat\n"))
    assert told(data) == PLAIN
    assert data.left_out == (("x/1.png", "line 5 repeats line 2"),)
    assert "1 rows repeat an image" in data.notes


def test_a_named_column_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label_column: t.csv has no column 'kind'; it has path, label"):
        open_path(write(tmp_path, "path,label\n" + BODY), label_column="kind")


def test_a_path_may_lead_out_through_a_link_where_links_are_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "data"
    for folder in (outside, root):
        folder.mkdir()
    (outside / "1.png").write_bytes(b"x")
    (root / "2.png").write_bytes(b"y")
    os.symlink(outside, root / "linked")
    (root / "t.csv").write_text("path,label\nlinked/1.png,a\n2.png,b\n")
    with pytest.raises(InvalidDatasetError, match="leads out of the table's folder"):
        open_path(root / "t.csv")
    assert open_path(root / "t.csv", follow_links=True).names == ("2.png", "linked/1.png")
    (root / "t.csv").write_text("path,label\n../outside/1.png,a\n2.png,b\n")
    with pytest.raises(InvalidDatasetError, match="leads out of the table's folder"):
        open_path(root / "t.csv", follow_links=True)


ROWS = ("x/1.png,a", "x/2.png,b", "y/3.png,a")


def with_column(column: str, *cells: str) -> str:
    return f"path,label,{column}\n" + "".join(f"{row},{cell}\n" for row, cell in zip(ROWS, cells, strict=True))


@pytest.mark.parametrize(
    ("column", "cells", "splits"),
    [
        ("split", ("train", "dev", "test"), ["train", "val", "test"]),
        ("split", ("Train", "VALIDATION", "testing"), ["train", "val", "test"]),
        ("split", ("train", "val", "holdout"), ["train", "val", "test"]),
        ("split", ("train", "test", "eval"), ["train", "test", "val"]),
        ("subset", ("training_set", "test_set", "training_set"), ["train", "test", "train"]),
        ("partition", ("train2017", "val2017", ""), ["train", "val", None]),
        ("phase", ("train", "val", "train"), ["train", "val", "train"]),
        ("whatever", ("train", "test", "train"), ["train", "test", "train"]),
        ("is_val", ("0", "1", "0"), ["train", "val", "train"]),
        ("is_validation", ("False", "TRUE", "f"), ["train", "val", "train"]),
        ("is_test", ("no", "yes", ""), ["train", "test", None]),
        ("IsTest", ("0.0", "1.0", "0"), ["train", "test", "train"]),
    ],
)
def test_a_column_of_splits_is_read_by_its_meaning(
    tmp_path: Path, column: str, cells: tuple[str, ...], splits: list[str | None]
) -> None:
    data = open_path(write(tmp_path, with_column(column, *cells)))
    assert list(data.splits or ()) == splits
    assert f"split '{column}'" in data.notes[0]


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [
        ("split", ("train", "holdout", "train"), "'holdout' could be validation or test"),
        ("set", ("train", "eval", "train"), "'eval' could be validation or test"),
        ("split", ("train", "spare", "train"), "line 3: 'spare', 1 row in all"),
        ("split", ("train", "nan", "val"), "line 3: 'nan'"),
        ("split", ("0", "1", "0"), "line 2: '0', 3 rows in all"),
        ("partition", ("1", "2", "3"), "line 2: '1', 3 rows in all"),
        ("fold", ("fold0", "fold1", "fold2"), "'fold' may mean splits or something else"),
        ("Usage", ("Training", "PublicTest", "PrivateTest"), "it holds PrivateTest, PublicTest beside Training"),
        ("whatever", ("train", "test", "extra"), "line 4: 'extra'"),
        ("is_valid", ("True", "False", "True"), "may state that a row is for val, or something else"),
        ("test", ("1", "0", "0"), "may state that a row is for test, or something else"),
        ("is_train", ("1", "0", "1"), "may be for validation or test"),
        ("is_holdout", ("1", "0", "1"), "may be for validation or test"),
    ],
)
def test_a_column_that_may_say_the_split_is_never_passed_over(
    tmp_path: Path, column: str, cells: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InvalidDatasetError, match=said):
        open_path(write(tmp_path, with_column(column, *cells)))


@pytest.mark.parametrize(("column", "cells"), [("fold", ("0", "1", "2")), ("set", ("old", "new", "old"))])
def test_a_column_called_like_splits_that_holds_none_is_said(
    tmp_path: Path, column: str, cells: tuple[str, ...]
) -> None:
    data = open_path(write(tmp_path, with_column(column, *cells)))
    assert data.splits is None
    assert data.notes[-1] == f"column {column!r} is not used for splits: it holds {', '.join(sorted(set(cells)))}"


def test_a_column_of_yes_and_no_counts_where_it_is_named(tmp_path: Path) -> None:
    table = write(tmp_path, with_column("is_valid", "True", "False", "False"))
    data = open_path(table, split_column="is_valid")
    assert list(data.splits or ()) == ["val", "train", "train"]
    assert "'False' is train, 'True' is val" in data.notes[-1]


def test_two_columns_of_splits_are_refused_unless_one_is_called_so(tmp_path: Path) -> None:
    text = "path,label,{},y\nx/1.png,a,train,test\nx/2.png,b,val,train\ny/3.png,a,train,train\n"
    with pytest.raises(InvalidDatasetError, match="several columns of the table state the split"):
        open_path(write(tmp_path, text.format("x")))
    data = open_path(write(tmp_path, text.format("split")))
    assert list(data.splits or ()) == ["train", "val", "train"]
    assert "column 'y' holds splits too and is not used" in data.notes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ends", [("", "", ""), (",train", ",val", ",train")])
def test_a_table_without_header_loses_no_row(
    tmp_path: Path, encoding: str, separator: str, ends: tuple[str, ...]
) -> None:
    lines = "".join(f"{row}{end}\n" for row, end in zip(BODY.split(), ends, strict=True)).replace(",", separator)
    data = open_path(write(tmp_path, lines, encoding=encoding))
    assert told(data) == PLAIN
    assert data.notes[0] == "no header: the first line names the image 'x/1.png' and is read as a row"
    assert list(data.splits or ()) == [end[1:] for end in ends if end]


def test_columns_without_header_have_numbers(tmp_path: Path) -> None:
    table = write(tmp_path, "1,x/1.png,a\n2,x/2.png,b\n")
    with pytest.raises(NotLabeledDatasetError, match="column 1, column 2, column 3"):
        open_path(table)
    assert told(open_path(table, label_column="column 3")) == [("x/1.png", "a"), ("x/2.png", "b")]


def test_a_spreadsheets_own_first_line_is_no_header(tmp_path: Path) -> None:
    assert told(open_path(write(tmp_path, "sep=;\npath;label\n" + BODY.replace(",", ";")))) == PLAIN
    with pytest.raises(InvalidDatasetError, match="line 3: 3 cells"):
        open_path(write(tmp_path, "sep=;\npath;label\nx/1.png;a;b\n"))


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "NA", "N/A", "null", "NULL", "<NA>", "#N/A"])
def test_a_label_that_may_be_missing_is_refused_with_its_lines(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidDatasetError, match="1 row of column 'label', lines 3") as caught:
        open_path(write(tmp_path, f"path,label\nx/1.png,a\nx/2.png,{text}\ny/3.png,b\n"))
    assert "missing values, or the name of a class" in caught.value.rule


@pytest.mark.parametrize("text", ["none", "na", "-", "?"])
def test_a_word_that_may_be_a_missing_label_is_said(tmp_path: Path, text: str) -> None:
    data = open_path(write(tmp_path, f"path,label\nx/1.png,a\nx/2.png,{text}\ny/3.png,b\n"))
    assert f"1 row with the label {text!r}, used as a class" in data.notes


def test_rows_without_a_group_stand_alone_and_are_counted(tmp_path: Path) -> None:
    data = open_path(write(tmp_path, with_column("group", "nan", "g", "nan")))
    assert list(data.groups or ()) == ["name:x/1.png", "group:g", "name:y/3.png"]
    assert "2 rows with no group in column 'group', each on its own" in data.notes


def test_missing_cells_of_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet

    path, names = write(tmp_path, "", "t.parquet"), ["x/1.png", "x/2.png", "y/3.png"]
    for labels in ([0.0, float("nan"), 1.0], [0, None, 1], ["a", "", "b"]):
        parquet.write_table(pyarrow.table({"path": names, "label": labels}), path)
        with pytest.raises(InvalidDatasetError, match="1 rows without, in lines 2"):
            open_path(path)
    parquet.write_table(pyarrow.table({"path": names, "label": [0, 1, 1], "split": ["train", None, "val"]}), path)
    assert list(open_path(path).splits or ()) == ["train", None, "val"]
    parquet.write_table(pyarrow.table({"x/1.png": names[1:], "a": ["a", "b"]}), path)
    with pytest.raises(InvalidDatasetError, match="a column is called 'x/1.png', like an image"):
        open_path(path)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_table_finds_names_that_the_disk_spells_otherwise(tmp_path: Path, forms: tuple[Any, Any]) -> None:
    disk, table = (normalize(form, "\u00c4pfel/\u00f6.png") for form in forms)
    (tmp_path / disk).parent.mkdir(parents=True)
    (tmp_path / disk).write_bytes(b"an image, never decoded here")
    data = open_path(write(tmp_path, f"path,label\n{table},a\n{disk},a\nx/1.png,b\n"))
    assert told(data) == [("x/1.png", "b"), (disk, "a")] or told(data) == [(disk, "a"), ("x/1.png", "b")]
    assert "1 path of the table found under file names that differ in Unicode form only" in data.notes
    assert "1 rows repeat an image" in data.notes


@pytest.mark.parametrize("path", ["x" * 300, "x/" + "\u00e4" * 200 + ".png", "a\0b.png"])
def test_a_path_that_no_file_can_have_is_refused_with_its_line(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidDatasetError, match="line 2"):
        open_path(write(tmp_path, f"path,label\n{path},a\nx/1.png,b\n"))


def test_labels_in_two_spellings_of_unicode_are_one_class(tmp_path: Path) -> None:
    labels = (normalize("NFD", "\u00c4"), "\u00c4", "b")
    rows = zip(("x/1.png", "x/2.png", "y/3.png"), labels, strict=True)
    text = "path,label\n" + "".join(f"{name},{label}\n" for name, label in rows)
    data = open_path(write(tmp_path, text))
    assert data.classes == ("b", "\u00c4")
    assert "1 of them occur in two spellings" in data.notes[-1]
