"""The distributions: their version is the tag's, with git and without, and they install into an empty environment.

Run by `.ci/run`: pytest -m release. Packages come from the index that pip and uv are configured with.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from automl_pt.core import __version__

ROOT = Path(__file__).parents[1]
NEEDS = pytest.mark.skipif(
    shutil.which("uv") is None or shutil.which("git") is None or not (ROOT / ".git").exists(),
    reason="a release is built by uv from a git checkout",
)


def run(*command: object, cwd: Path, path: str | None = None) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    given = {**kept, **({"PATH": path} if path is not None else {})}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def build(source: Path, target: Path, *words: str) -> str:
    """Build into `target` and return the version of what was built."""
    run("uv", "build", "-q", *words, "--out-dir", target, source, cwd=source)
    (built,) = target.glob("*.whl") if "--sdist" not in words else target.glob("*.tar.gz")
    return built.name.removesuffix(".tar.gz").split("-")[1]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that git tracks, without git."""
    folder = tmp_path_factory.mktemp("bare")
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run("uv", "build", "-q", "--out-dir", folder, ROOT, cwd=ROOT)
    return folder


@pytest.mark.release
@NEEDS
def test_the_version_is_the_tags_and_counts_on_from_it(bare: Path, tmp_path: Path) -> None:
    fallback = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["version"]["raw-options"]
    assert build(bare, tmp_path / "without-git", "--wheel") == fallback["fallback_version"]
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false")
    run("git", "init", "-q", cwd=bare)
    run("git", "add", "-A", cwd=bare)
    run(*git, "commit", "-qm", "First", cwd=bare)
    assert build(bare, tmp_path / "untagged", "--wheel").startswith("0.1.1.dev1+g")
    run(*git, "tag", "-m", "x", "v1.2.3", cwd=bare)
    assert build(bare, tmp_path / "tagged", "--wheel") == "1.2.3"
    run(*git, "commit", "-q", "--allow-empty", "-m", "Second", cwd=bare)
    assert build(bare, tmp_path / "after", "--wheel").startswith("1.2.4.dev1+g")


@pytest.mark.release
@NEEDS
def test_an_sdist_without_git_has_its_own_version_and_what_uv_sync_needs(distributions: Path, tmp_path: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    version = archive.name.removesuffix(".tar.gz").split("-")[1]
    assert build(folder, tmp_path / "again", "--wheel") == version
    # the lock file resolves, editable sources included, so that `uv sync` works here
    run("uv", "lock", "-q", cwd=folder)
    assert (folder / "plugins" / "automl-pt-lite" / "pyproject.toml").is_file()


@pytest.mark.release
@NEEDS
def test_twine_finds_no_fault(distributions: Path) -> None:
    run("uv", "tool", "run", "-q", "twine", "check", "--strict", *distributions.glob("automl_pt-*"), cwd=ROOT)


@pytest.mark.release
@NEEDS
def test_the_wheel_works_in_an_empty_environment(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    run("uv", "venv", "-q", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    pins = tmp_path / "pins.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins.write_text("\n".join(line.split(" \\")[0] for line in lines if "==" in line and "--hash" not in line))
    run("uv", "pip", "install", "-q", "--python", scripts / "python", "-c", pins, wheel, cwd=tmp_path)
    command = scripts / "automl-pt"
    assert wheel.name.split("-")[1] in run(command, "--version", cwd=tmp_path)
    assert "problem" not in run(command, "doctor", cwd=tmp_path).lower().replace("no problems found", "")
    run(command, "plugins", "new", "acme-nets", cwd=tmp_path)
    words = ("--epochs", "1", "--batch-size", "64", "--lr", "0.05", "--output", "run", "--device", "cpu", "--quiet")
    run(command, "train", "digits", *words, cwd=tmp_path)
    assert (tmp_path / "run" / "model.json").is_file()
    done = subprocess.run([command, "serve", "run"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert '"starlette>=' in done.stderr


def test_the_changelog_has_a_place_for_what_is_not_released() -> None:
    heads = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert heads[0] == "## Unreleased" or heads[0].removeprefix("## ").split()[0] == __version__
