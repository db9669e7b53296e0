"""A fresh environment that sees the packages of this one, with plugin distributions installed into it for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def make_environment(folder: Path, *distributions: Path) -> Path:
    """Create it in `folder` and return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    lines = [f"import site; site.addsitedir({path!r})" for path in (sysconfig.get_path("purelib"), str(ROOT))]
    Path(site, "packages_of_the_test_run.pth").write_text("\n".join(lines))
    for number, distribution in enumerate(distributions):
        ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache")
        source = shutil.copytree(distribution, folder / f"source-{number}", ignore=ignored)
        # automl-pt itself is here already, and on no index that a plugin's author could install it from
        subprocess.run([*_installer(python), "--no-deps", str(source)], check=True, capture_output=True)
    return python


def own_tests(python: Path, distribution: Path, folder: Path, *, warnings: str = "error") -> str:
    """Run a distribution's own tests in a copy, warnings as errors unless said otherwise; return what pytest says."""
    tests = shutil.copytree(distribution / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    command = [python, "-m", "pytest", "-q", "-W", warnings, "-p", "no:cacheprovider", "--rootdir", folder, tests]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _installer(python: Path) -> list[str]:
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", str(python)]
    return [sys.executable, "-m", "pip", "--python", str(python), "install"]
