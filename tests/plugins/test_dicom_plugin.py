"""The DICOM plugin: its author's tests, and its files as images of a dataset beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from automl_pt.config import TrainConfig
from automl_pt.data.pixel_survey import survey_pixels
from automl_pt.images.pixel_format import PixelFormat
from automl_pt.layouts.layouts import open_path
from automl_pt.plugins.manager import load_plugins
from automl_pt.testing.names import check_name

PLUGIN = Path(__file__).parents[2] / "plugins" / "automl-pt-dicom"
FILE = PLUGIN / "automl_pt_dicom.py"


def test_its_own_tests_pass() -> None:
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(PLUGIN), "-c", "/dev/null"]
    subprocess.run([sys.executable, "-m", "pytest", *options, "tests"], cwd=PLUGIN, check=True, env={"PYTHONPATH": "."})


def test_a_folder_of_its_files_is_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    monkeypatch.syspath_prepend(str(PLUGIN / "tests"))
    monkeypatch.syspath_prepend(str(PLUGIN))
    from test_dicom import NUMBERS, scan  # type: ignore[import-not-found]  # found by the path above

    assert list(check_name("automl_pt_dicom", load_plugins([str(FILE)]))) == ["reader DICOM"]
    for name in ("a/1.dcm", "b/2.DCM"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(scan(NUMBERS, RescaleIntercept="-1024", RescaleSlope="1"))
    found = survey_pixels(open_path(tmp_path), TrainConfig(dataset=str(tmp_path)))
    assert found.pixels == PixelFormat(1, "float32")
