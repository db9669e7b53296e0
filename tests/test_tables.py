from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import pytest

from automl_pt.dataset import LabeledImages
from automl_pt.errors import AutomlError, ConfigError, InstallationError, InvalidDatasetError, NotLabeledDatasetError
from automl_pt.layouts.columns import Columns
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
    with pytest.raises(InvalidDatasetError, match="a table must be readable"):
        open_path(path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InstallationError, match=r"pip install 'automl-pt\[parquet\]'"):
        open_path(write(tmp_path, "", "t.parquet"))


def test_columns_are_guessed_and_said(tmp_path: Path) -> None:
    text = "path,label,split,group\nx/1.png,a,Train,p\nx/2.png,b,valid,q\ny/3.png,a,,\n"
    data = open_path(write(tmp_path, text))
    assert data.notes == ("columns guessed: image 'path', label 'label', split 'split', group 'group'",)
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
    with pytest.raises(InvalidDatasetError, match="within the table's folder") as caught:
        open_path(table)
    assert "line 3" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("path,label\n", InvalidDatasetError, "no row"),
        ("", InvalidDatasetError, "which column of a table holds the paths"),
        ("a,b,c\nx/1.png,1,2\n", NotLabeledDatasetError, "which column of a table holds the labels"),
        ("path\nx/1.png\n", NotLabeledDatasetError, "name it with --label-column"),
        ("a,label\n1,2\n", InvalidDatasetError, "name it with --image-column"),
        ("path,path\nx/1.png,b\n", InvalidDatasetError, "path twice"),
        ("path,label\nx/1.png,\nx/2.png,\n", NotLabeledDatasetError, "nothing in column 'label'"),
        ("path,label\nx/1.png,a\nx/2.png,\n,b\n", InvalidDatasetError, "2 rows without, in lines 3, 4"),
        ("path,label\nx/1.png,a,b\n", InvalidDatasetError, "line 2: 3 cells, where the header has 2"),
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
    with pytest.raises(InvalidDatasetError, match="line 3: 'dev'"):
        open_table(write(tmp_path, "path,label,s\nx/1.png,a,train\nx/2.png,b,dev\n"), Columns(split="s"))


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
