"""The commands that list names: columns, JSON, patterns, plugin files."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automl_pt.cli.backbones import command as backbones
from automl_pt.cli.datasets import command as datasets
from automl_pt.cli.lookup import matching
from automl_pt.cli.plugins import command as plugins
from automl_pt.core.errors import PluginError, UnknownNameError

PLUGIN = """
from automl_pt import Backbone, Dataset, hookimpl

@hookimpl
def register_backbones():
    return [Backbone("mine/net", lambda classes, pretrained: None, image_size=48)]

@hookimpl
def register_datasets():
    return [Dataset("mine/set", lambda root: None, description="of mine \\x1b[31m")]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return str(path)


def test_backbones_in_columns(runner):
    lines = runner.invoke(backbones, ["densenet1?1"]).output.splitlines()
    assert lines[0].split("  ")[0] == "name"
    assert [line.split() for line in lines[1:]] == [
        ["densenet121", "8+", "(224)", "8.0", "M", "5.7", "yes", "BSD-3-Clause"],
        ["densenet161", "8+", "(224)", "28.7", "M", "15.5", "yes", "BSD-3-Clause"],
    ]


def test_backbones_as_json(runner, file):
    [row] = json.loads(runner.invoke(backbones, ["mine", "--json", "--plugin", file]).output)
    known = {"name": "mine/net", "image_size": 48, "pretrained": False, "license": None}
    unknown = dict.fromkeys(("min_image_size", "parameters", "gflops", "batch_norm", "sha256"))
    assert row == {**known, **unknown}


def listed(runner, *options):
    result = runner.invoke(backbones, ["--json", *options], catch_exceptions=False)
    return {row["name"]: row for row in json.loads(result.output)}


def test_backbones_by_filter(runner, file):
    small = listed(runner, "--max-params", "3M", "--pretrained")
    assert len(small) > 10
    assert all(r["parameters"] <= 3e6 and r["pretrained"] for r in small.values())
    low = listed(runner, "--min-size", "64")
    assert {"resnet18", "densenet121"} <= set(low)
    assert all((r["min_image_size"] or r["image_size"]) <= 64 for r in low.values())
    assert set(listed(runner, "mine", "--plugin", file, "--min-size", "48")) == {"mine/net"}
    assert "resnet18" in listed(runner, "resnet", "--max-params", "11700000")
    error = runner.invoke(backbones, ["mine", "--plugin", file, "--max-params", "1G"]).exception
    assert isinstance(error, UnknownNameError)  # what is not known passes no filter
    assert "leave a filter out" in str(error)


@pytest.mark.parametrize("number", ["many", "3X", "", "infM"])
def test_a_number_of_parameters_that_is_none(runner, number):
    result = runner.invoke(backbones, ["--max-params", number])
    assert result.exit_code == 2
    assert "is not a number of parameters, such as 5M or 300000" in result.output


def test_figures_of_the_built_in_backbones(runner):
    rows = listed(runner, "resnet18")
    assert (rows["resnet18"]["parameters"], rows["resnet18"]["batch_norm"]) == (11_689_512, True)
    assert 3.6 < rows["resnet18"]["gflops"] < 3.7
    assert rows["timm/resnet18.a3_in1k"]["gflops"] < rows["timm/resnet18.a1_in1k"]["gflops"]


def test_all_of_timm_has_figures():
    from automl_pt.builtin.figures import table
    from automl_pt.builtin.timm_backbones import make, names

    assert [name for name in names() if make(name).parameters is None] == []
    assert len(table()) > 1000


def test_datasets(runner, file):
    rows = json.loads(runner.invoke(datasets, ["--json", "--plugin", file]).output)
    assert {"digits", "mine/set", "torchvision/CIFAR10"} <= {row["name"] for row in rows}
    output = runner.invoke(datasets, ["mine", "--plugin", file]).output
    assert r"of mine \x1b[31m" in output
    assert "\x1b" not in output


def test_plugins(runner, file):
    result = runner.invoke(plugins, ["--plugin", file], standalone_mode=False)
    assert result.return_value == 0
    assert result.output.splitlines()[-1].split("  ")[-1] == file
    found = json.loads(runner.invoke(plugins, ["--json", "--plugin", file], standalone_mode=False).stdout)
    assert found[-1] == {
        "name": "mine",
        "version": "",
        "origin": file,
        "hooks": ["register_backbones", "register_datasets"],
    }


def test_a_faulty_plugin_is_told_and_the_others_listed(runner, tmp_path):
    (tmp_path / "faulty.py").write_text("def (:")
    result = runner.invoke(plugins, ["--plugin", str(tmp_path / "faulty.py")], standalone_mode=False)
    assert result.return_value == 1
    assert "torchvision_backbones" in result.stdout
    assert "a plugin cannot be imported" in result.stderr


@pytest.mark.parametrize("command", [backbones, datasets])
def test_a_pattern_that_fits_nothing(command, runner):
    error = runner.invoke(command, ["no-such-thing"]).exception
    assert isinstance(error, UnknownNameError)
    assert "lists all of them" in str(error)


@pytest.mark.parametrize("command", [backbones, datasets])
def test_a_plugin_file_that_is_absent(command, runner):
    assert isinstance(runner.invoke(command, ["--plugin", "absent.py"]).exception, PluginError)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [(None, ["a/B1", "b2"]), ("b", ["a/B1", "b2"]), ("B1", ["a/B1"]), ("*1", ["a/B1"]), ("b?", ["b2"]), ("x", [])],
)
def test_patterns(pattern, found):
    assert matching(pattern, ["a/B1", "b2"]) == found


def test_plugins_are_listed_at_once_without_torch(tmp_path):
    code = (
        "import sys, runpy\nsys.argv = ['automl-pt', 'plugins']\n"
        "try:\n    runpy.run_module('automl_pt', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, [m for m in ('torch', 'timm', 'optuna') if m in sys.modules])"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    # 0.17 s measured on an idle machine; the tests may run beside others
    assert time.perf_counter() - began < 5


def test_a_plugin_is_checked(runner):
    example = str(Path(__file__).parents[2] / "plugins" / "automl-pt-example" / "automl_pt_example.py")
    for name, passed in {
        "example/tiny": ["backbone example/tiny"],
        "example/stripes": ["dataset example/stripes"],
        "automl_pt_example": ["backbone example/tiny", "dataset example/stripes", "tracker automl_pt_example"],
        "timm/test_resnet": ["backbone timm/test_resnet"],
    }.items():
        result = runner.invoke(plugins, ["check", name, "--plugin", example])
        assert result.output.splitlines() == [f"{what} keeps the contract" for what in passed], result.exception


def test_checking_names_what_is_wrong(runner, file):
    error = runner.invoke(plugins, ["check", "mine/net", "--plugin", file]).exception
    assert isinstance(error, PluginError)
    assert "did not return a torch.nn.Module" in str(error)
    error = runner.invoke(plugins, ["check", "mine/ne", "--plugin", file]).exception
    assert isinstance(error, UnknownNameError)
    assert "unknown plugin, backbone, dataset, optimizer, augmentation, sampler, pruner, executor, metric" in str(error)
    assert "'mine/net'" in str(error)
