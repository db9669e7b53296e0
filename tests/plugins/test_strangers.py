"""Packages that know nothing of this toolkit, installed for real: trained, saved, loaded, asked, by short plugins."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
from test_example_plugin import ROOT, automl, installer

from automl_pt.plugins.scaffold import chosen, template

STRANGERS = Path(__file__).parents[1] / "strangers"
#: what the index is asked for; torch, numpy and the like are those of the tests
PACKAGES = {
    "vit_pytorch_plugin": ["vit-pytorch==1.26.11", "einops"],
    "pytorchcv_plugin": ["pytorchcv==0.0.74", "requests", "tqdm"],
    "transformers_plugin": ["transformers==5.23.0", "tokenizers", "regex"],
    "efficientnet_plugin": ["efficientnet_pytorch==0.7.1"],
    "medmnist_plugin": ["medmnist==3.0.2", "fire", "termcolor", "scikit-image", "imageio", "lazy_loader", "tifffile"],
}
BACKBONES = {
    "vit_pytorch_plugin": "vit-pytorch/tiny",
    "pytorchcv_plugin": "pytorchcv/any",
    "transformers_plugin": "transformers/resnet",
    "efficientnet_plugin": "lukemelas/efficientnet-b0",
}


def code_lines(text: str) -> int:
    """Count lines that hold code: neither empty, nor comments, nor docstrings."""
    tree = ast.parse(text)
    kept = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt)
        and not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
    ]
    compound = (ast.FunctionDef, ast.ClassDef, ast.For, ast.With, ast.If, ast.Try)
    used: set[int] = set()
    for node in kept:
        last = node.body[0].lineno - 1 if isinstance(node, compound) else node.end_lineno
        used |= set(range(node.lineno, max(node.lineno, last or 0) + 1))
        used |= {decorator.lineno for decorator in getattr(node, "decorator_list", [])}
    lines = text.splitlines()
    return sum(
        1 for number in used if lines[number - 1].strip() and not lines[number - 1].strip().startswith(('"""', "#"))
    )


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_stranger_needs_few_lines(name):
    assert code_lines((STRANGERS / f"{name}.py").read_text()) <= 15


def test_what_plugins_new_writes_is_short():
    module = (template() / "automl_pt_example.py").read_text()
    assert code_lines(chosen(module, ".py", frozenset({"backbone"}))) <= 10
    assert code_lines(chosen(module, ".py", frozenset({"dataset"}))) <= 15
    synthetic = ROOT / "plugins" / "automl-pt-synthetic" / "automl_pt_synthetic.py"
    assert code_lines(synthetic.read_text()) <= 15


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Return the Python of a fresh environment with the strangers, that sees this one's packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    fresh = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = subprocess.run(
        [fresh, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    lines = [f"import site; site.addsitedir({path!r})" for path in (sysconfig.get_path("purelib"), str(ROOT))]
    Path(site, "packages_of_the_test_run.pth").write_text("\n".join(lines))
    wanted = [package for packages in PACKAGES.values() for package in packages]
    subprocess.run([*installer(fresh), "--no-deps", *wanted], check=True, capture_output=True)
    return fresh


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_a_strange_backbone_keeps_the_contract_trains_and_predicts(name, python, tmp_path, tiny_folder):
    plugin = shutil.copy(STRANGERS / f"{name}.py", tmp_path)
    assert "keeps the contract" in automl(python, "plugins", "check", name, "--plugin", plugin, folder=tmp_path)
    options = (
        "--backbone",
        BACKBONES[name],
        "--plugin",
        plugin,
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--threads",
        "1",
    )
    images = str(shutil.copytree(tiny_folder, tmp_path / "images"))
    assert "ended: completed" in automl(python, "train", images, *options, "--output", "run", folder=tmp_path)
    predicted = automl(
        python, "predict", "run", str(tmp_path / "images" / "val"), "--plugin", plugin, "-o", "p.csv", folder=tmp_path
    )
    assert (tmp_path / "p.csv").read_text().count("\n") > 3, predicted


@pytest.mark.slow
def test_a_strange_dataset_keeps_the_contract_and_trains(python, tmp_path):
    plugin = shutil.copy(STRANGERS / "medmnist_plugin.py", tmp_path)
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 80), ("val", 24), ("test", 24)):  # the file's own format, with drawn cells
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 28, 28, 3), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 8)[:, None].astype(np.uint8)
    np.savez(tmp_path / "bloodmnist.npz", **arrays)
    root = ("--root", str(tmp_path), "--plugin", plugin)
    assert "keeps the contract" in automl(python, "plugins", "check", "medmnist/blood", *root, folder=tmp_path)
    options = ("--backbone", "timm/test_resnet", "--epochs", "1", "--batch-size", "8", "--threads", "1", *root)
    assert "ended: completed" in automl(python, "train", "medmnist/blood", *options, "-o", "run", folder=tmp_path)
