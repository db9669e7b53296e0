"""The model directory on disk: replaced as a whole, read with nothing taken on trust."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_info

from automl_pt.core.errors import InvalidModelDirectoryError, OutputError
from automl_pt.core.files import to_json
from automl_pt.model.directory import publish, read_info, read_model, save_model
from automl_pt.model.info import ModelInfo

STATE = {"weight": torch.arange(12.0).reshape(3, 4)}


def saved(directory: Path, **changes: Any) -> Path:
    save_model(directory, STATE, make_info(**changes))
    return directory


def rewrite(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change model.json as somebody would who knows the format: with a fitting checksum."""
    record = json.loads((directory / "model.json").read_text())
    del record["checksum"]
    change(record)
    checksum = hashlib.sha256(to_json(record).encode()).hexdigest()
    (directory / "model.json").write_text(json.dumps({**record, "checksum": checksum}))


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "m", recipe="model = 1", weights_license="MIT", precision="bf16", device="cuda")
    info, weights, content = read_model(tmp_path / "m")
    assert info == make_info(recipe="model = 1", weights_license="MIT", precision="bf16", device="cuda")
    assert weights.size == len(content)
    assert weights.file == f"weights-{weights.sha256[:12]}.safetensors"
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["README.md", "model.json", weights.file]


def test_the_older_weights_go_when_the_new_ones_are_in_place(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "weights-0123456789ab.safetensors").write_bytes(b"a stray of a killed process")
    (tmp_path / "weights-of-mine.safetensors").write_bytes(b"not ours")
    save_model(tmp_path, {"weight": STATE["weight"] + 1}, make_info())
    kept = {path.name for path in tmp_path.glob("*.safetensors")}
    assert kept == {read_info(tmp_path)[1].file, "weights-of-mine.safetensors"}


def test_tensors_that_share_memory_or_lie_apart_are_saved_by_value(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(2, 3, 2, 2)
    state = {"tied": base, "again": base, "last": base.to(memory_format=torch.channels_last), "part": base[:, 1]}
    save_model(tmp_path, state, make_info())
    from safetensors.torch import load

    read = load(read_model(tmp_path)[2])
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_publishing_copies_a_model_whole(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    saved(tmp_path / "b", metrics={"epoch": 9})
    publish(tmp_path / "a", tmp_path / "b")
    assert read_model(tmp_path / "b") == read_model(tmp_path / "a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_kill_or_a_full_disk_leaves_the_old_or_the_new_model(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "kill_save.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "no space"


def test_a_file_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("a file")
    with pytest.raises(OutputError, match="a file of that name exists"):
        saved(tmp_path / "m")


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer format": (lambda r: r.update(format=2), "format 2; this version reads format 1"),
    "no classes": (lambda r: r.pop("classes"), "classes missing"),
    "one class": (lambda r: r.update(classes=["a"]), "from 2 to 100,000 are allowed"),
    "too many classes": (lambda r: r.update(classes=["a"] * 100_001), "classes has 100,001 entries"),
    "a class twice": (lambda r: r.update(classes=["a", "b", "a"]), "names 'a' twice"),
    "numbers for classes": (lambda r: r.update(classes=[1, 2]), "something other than names"),
    "text for classes": (lambda r: r.update(classes="ab"), "classes is str, not a list"),
    "a list for the backbone": (lambda r: r.update(backbone=["os.system"]), "backbone is list, not text"),
    "history of numbers": (lambda r: r.update(history=[1]), "history holds something other than objects"),
    "unknown precision": (lambda r: r.update(precision="int8"), "precision is 'int8'"),
    "huge images": (lambda r: r["preprocessing"].update(image_size=10**9), "an image_size from 1 to 4096"),
    "std of zero": (lambda r: r["preprocessing"].update(std=[0, 1, 1]), "a std of three finite numbers above 0"),
    "weights elsewhere": (lambda r: r["weights"].update(file="../weights-0123456789ab.safetensors"), "is called"),
    "weights anywhere": (lambda r: r["weights"].update(file="/etc/passwd"), "is called '/etc/passwd'"),
    "a pickle for weights": (lambda r: r["weights"].update(file="weights.pt"), "not weights-HASH.safetensors"),
    "no weights": (lambda r: r.pop("weights"), "does not state the file of the weights"),
    "a size that is true": (lambda r: r["weights"].update(size=True), "does not state the file"),
    "a smaller size": (lambda r: r["weights"].update(size=10), "10 are allowed"),
    "a larger size": (lambda r: r["weights"].update(size=10**6), "bytes, not the 1,000,000 that were written"),
    "another hash": (lambda r: r["weights"].update(sha256="0" * 64), "its SHA-256 does not match"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_refused_with_its_fault(tmp_path: Path, name: str) -> None:
    change, message = HOSTILE[name]
    saved(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(InvalidModelDirectoryError) as caught:
        read_model(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", "is not an object"),
        (b'{"format": 1, "format": 1}', "a key occurs twice"),
        (b'{"format": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b"1" * 10_000, "is not valid JSON"),
        (b'{"format": 1}', "its checksum does not match"),
        (b'{"format": 1, "checksum": [1]}', "its checksum does not match"),
    ],
)
def test_junk_is_no_record(tmp_path: Path, content: bytes, message: str) -> None:
    saved(tmp_path)
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(InvalidModelDirectoryError, match=message):
        read_model(tmp_path)


def test_a_file_too_long_for_a_record_is_not_read(tmp_path: Path) -> None:
    saved(tmp_path)
    with open(tmp_path / "model.json", "r+b") as stream:
        stream.truncate(2**40)
    with pytest.raises(InvalidModelDirectoryError, match="1,099,511,627,776 bytes"):
        read_model(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "weights"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "gone"])
def test_only_regular_files_are_read(tmp_path: Path, name: str, kind: str) -> None:
    saved(tmp_path / "m")
    path = next((tmp_path / "m").glob(f"{name}*"))
    path.rename(tmp_path / "elsewhere")
    make: dict[str, tuple[Callable[[], object], str]] = {
        "link": (lambda: path.symlink_to(tmp_path / "elsewhere"), "is a link; links are not followed"),
        "pipe": (lambda: os.mkfifo(path), "is not a regular file"),
        "folder": (lambda: path.mkdir(), "Is a directory|is not a regular file"),
        "gone": (lambda: None, f"it has no {path.name}"),
    }
    make[kind][0]()
    with pytest.raises(InvalidModelDirectoryError, match=make[kind][1]):
        read_model(tmp_path / "m")


def test_a_path_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidModelDirectoryError, match="there is no such directory"):
        read_model(tmp_path / "absent")
    with pytest.raises(InvalidModelDirectoryError, match="it is a file, not a directory"):
        read_model(tmp_path / "file")


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "pytorch_model.bin", "m.joblib", "__0_0.distcp"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str, inside: bool) -> None:
    (tmp_path / "m").mkdir()
    file = tmp_path / "m" / name
    file.write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    (tmp_path / "m" / ".metadata").write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    with pytest.raises(InvalidModelDirectoryError, match="a pickle or an archive, which is never opened"):
        read_model(tmp_path / "m" if inside else file)
    assert not (tmp_path / "canary").exists()


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10**9), bit=st.integers(0, 7), of_weights=st.booleans())
def test_a_flipped_bit_is_noticed_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int, of_weights: bool
) -> None:
    directory = tmp_path_factory.getbasetemp() / "flipped"
    if not directory.exists():
        saved(directory)
    path = next(directory.glob("weights-*" if of_weights else "model.json"))
    before, intact = read_model(directory), path.read_bytes()
    damaged = bytearray(intact)
    damaged[position % len(intact)] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        assert read_model(directory) == before  # e.g. another case of the e in 1e-05: the same number
    except InvalidModelDirectoryError:
        pass
    finally:
        path.write_bytes(intact)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(sorted(make_info().to_dict())), json_values, max_size=3))
def test_anything_as_a_record_is_read_or_refused(changes: dict[str, Any]) -> None:
    values = {**make_info().to_dict(), **changes}
    try:
        info = ModelInfo.from_dict(values)
    except (ValueError, InvalidModelDirectoryError):
        return
    assert json.loads(to_json(info.to_dict())) == json.loads(to_json({**make_info().to_dict(), **changes}))
