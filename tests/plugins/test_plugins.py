"""Plugins from every source, and each way in which one can be wrong."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from automl_pt import Backbone, hookimpl
from automl_pt.backbone import Catalogue
from automl_pt.core.errors import PluginError, UnknownNameError
from automl_pt.plugins.implementations import survey
from automl_pt.plugins.manager import load_plugins
from automl_pt.plugins.sources import FOLDER_VARIABLE, OFF_VARIABLE

BACKBONE = """
from automl_pt import Backbone, hookimpl

def build(num_classes, pretrained):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))

@hookimpl
def register_backbones():
    return [Backbone({name!r}, build, image_size=8)]
"""


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.fixture(autouse=True)
def _no_installed_plugins(monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv(OFF_VARIABLE, raising=False)
    monkeypatch.setattr("automl_pt.plugins.sources.installed", lambda: [])


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Return a function that lays out an installed distribution of one module with an entry point."""
    monkeypatch.undo()
    site = tmp_path / "site"

    def install(name: str, version: str, module: str, text: str, entry: str | None = None) -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[automl_pt]\n{entry or module} = {module}\n")
        target = site.joinpath(*module.split(".")).with_suffix(".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        importlib.invalidate_caches()
        return target

    monkeypatch.syspath_prepend(site)
    return install


def names(plugins):
    return [plugin.name for plugin in plugins.loaded]


def test_builtins_come_first_and_through_hooks():
    plugins = load_plugins()
    assert names(plugins)[:3] == ["torchvision_backbones", "timm_backbones", "digits"]
    assert all(plugin.hooks and plugin.origin == "built in" for plugin in plugins.loaded)
    assert not plugins.faults


def test_a_file_registers_a_backbone(tmp_path):
    file = write(tmp_path / "mine.py", BACKBONE.format(name="mine/tiny"))
    plugins = load_plugins([file])
    assert plugins.backbone("mine/tiny").image_size == 8
    assert plugins.files == (file,)
    assert plugins.provider(plugins.backbones(), "mine/tiny").origin == file


def test_a_relative_file_is_kept_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.py", BACKBONE.format(name="mine/tiny"))
    assert load_plugins(["mine.py"]).files == (str(tmp_path / "mine.py"),)


def test_a_folder_is_searched(tmp_path, monkeypatch):
    write(tmp_path / "a.py", BACKBONE.format(name="mine/a"))
    write(tmp_path / "b.py", BACKBONE.format(name="mine/b"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    plugins = load_plugins([str(tmp_path / "b.py")])
    assert names(plugins)[-2:] == ["a", "b"]
    assert {"mine/a", "mine/b"} <= set(plugins.backbones())


def test_a_distribution_is_found_by_its_entry_point(distribution):
    distribution("acme-nets", "1.2", "acme_nets", BACKBONE.format(name="acme/tiny"))
    plugins = load_plugins()
    found = next(plugin for plugin in plugins.loaded if plugin.name == "acme_nets")
    assert (found.version, found.origin, found.hooks) == ("1.2", "acme-nets", ("register_backbones",))
    assert "acme/tiny" in plugins.backbones()


def test_third_parties_can_be_left_out(distribution, tmp_path, monkeypatch):
    distribution("acme-nets", "1.2", "acme_nets2", BACKBONE.format(name="acme/tiny2"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "absent"))
    monkeypatch.setenv(OFF_VARIABLE, "1")
    plugins = load_plugins()
    assert "acme/tiny2" not in plugins.backbones()
    assert all(plugin.origin == "built in" for plugin in plugins.loaded)


FAULTS = {
    "cannot be imported": (
        "import no_such_module_of_mine",
        ["a plugin cannot be imported", "No module named 'no_such_module_of_mine'", "remove the option"],
    ),
    "leaves the program": ("import sys; sys.exit(3)", ["a plugin cannot be imported", "SystemExit: 3"]),
    "broken syntax": ("def (:", ["a plugin cannot be imported", "SyntaxError"]),
    "no hook": ("def register_backbones():\n    return []", ["known hooks", "none", "put @hookimpl above"]),
    "unknown hook": (
        "from automl_pt import hookimpl\n@hookimpl\ndef register_backbone():\n    return []",
        ["known hooks", "register_backbone", "did you mean 'register_backbones'?"],
    ),
    "unknown arguments": (
        "from automl_pt import hookimpl\n@hookimpl\ndef register_backbones(size):\n    return []",
        ["known hooks", "size", "give the hook the arguments it has"],
    ),
    "hook raises": (
        "from automl_pt import hookimpl\n@hookimpl\ndef register_backbones():\n    return [1 / 0]",
        ["register_backbones returns Backbone values", "ZeroDivisionError: division by zero"],
    ),
    "hook returns nothing": (
        "from automl_pt import hookimpl\n@hookimpl\ndef register_backbones():\n    pass",
        ["register_backbones returns Backbone values", "'NoneType' object is not iterable"],
    ),
    "wrong type": (
        "from automl_pt import hookimpl\n@hookimpl\ndef register_backbones():\n    return ['tiny']",
        ["register_backbones returns Backbone values", "'tiny'", "return a list of automl_pt.Backbone(...)"],
    ),
    "dataset among backbones": (
        "from automl_pt import Dataset, hookimpl\n@hookimpl\ndef register_backbones():\n"
        "    return [Dataset('d', lambda root: None)]",
        ["register_backbones returns Backbone values", "Dataset(name='d'"],
    ),
    "taken name": (BACKBONE.format(name="resnet18"), ["registered once", "'resnet18' by torchvision_backbones"]),
    "name under a catalogue": (BACKBONE.format(name="timm/mine"), ["registered once", "'timm/mine' by timm_backbones"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_ends_the_command_and_is_named(fault, tmp_path):
    text, said = FAULTS[fault]
    file = write(tmp_path / "faulty.py", text)
    with pytest.raises(PluginError) as caught:
        load_plugins([file]).backbones()
    for words in [file, *said]:
        assert words in str(caught.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_distribution_costs_nobody_a_run(fault, distribution, caplog):
    module = f"faulty_{fault.replace(' ', '_')}"
    distribution("acme-nets", "1.2", module, FAULTS[fault][0])
    plugins = load_plugins()
    assert plugins.backbone("resnet18").name == "resnet18"
    [error] = plugins.faults
    for words in [f"{module} (acme-nets 1.2)", *FAULTS[fault][1][:-1]]:
        assert words in str(error)
    assert "plugin skipped" in caplog.text
    with pytest.raises(UnknownNameError, match="plugins were skipped, `automl-pt doctor` says which and why"):
        plugins.backbone("acme/tiny")


def test_two_plugins_of_one_name(tmp_path):
    (tmp_path / "other").mkdir()
    files = [write(tmp_path / "mine.py", BACKBONE.format(name="a/a"))]
    files.append(write(tmp_path / "other" / "mine.py", BACKBONE.format(name="b/b")))
    with pytest.raises(PluginError, match=r"two plugins have the same name(.|\n)*other.mine\.py(.|\n)*rename one"):
        load_plugins(files)


def test_a_missing_file():
    with pytest.raises(PluginError, match=r"plugin file not found(.|\n)*nowhere\.py(.|\n)*--plugin"):
        load_plugins(["nowhere.py"])


def test_a_file_that_is_not_python(tmp_path):
    with pytest.raises(PluginError, match=r"the plugin file is not a Python file"):
        load_plugins([write(tmp_path / "plugin.txt", "")])


def test_a_missing_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(PluginError, match=r"AUTOML_PT_PLUGINS does not name a folder(.|\n)*absent(.|\n)*unset"):
        load_plugins()


@pytest.mark.parametrize(("asked", "near"), [("resnet-18", "resnet18"), ("timm/resnet18x", "timm/resnet18")])
def test_an_unknown_backbone_suggests_near_names(asked, near):
    with pytest.raises(UnknownNameError, match=f"unknown backbone(.|\n)*{asked}(.|\n)*did you mean (.|\n)*'{near}'"):
        load_plugins().backbone(asked)


def test_an_unknown_dataset_suggests_near_names():
    with pytest.raises(UnknownNameError, match=r"unknown dataset(.|\n)*did you mean 'digits'(.|\n)*a path must exist"):
        load_plugins().dataset("digit")


def test_survey_imports_nothing(distribution):
    text = f"raise RuntimeError('imported')\n{BACKBONE.format(name='x/x')}"
    distribution("acme-nets", "1.2", "acme_package.part", text, entry="acme")
    found, faults = survey()
    assert not faults
    assert [(p.name, p.version, p.hooks, p.origin) for p in found if p.name == "acme"] == [
        ("acme", "1.2", ("register_backbones",), "acme-nets")
    ]


def test_survey_loads_what_the_source_does_not_tell(tmp_path):
    text = "import automl_pt\ndef register_datasets():\n    return []\nautoml_pt.hookimpl(register_datasets)\n"
    found, _ = survey([write(tmp_path / "dynamic.py", text)])
    assert found[-1].hooks == ("register_datasets",)


def test_survey_tells_every_fault(tmp_path):
    found, faults = survey([write(tmp_path / "faulty.py", "def (:"), write(tmp_path / "gone.py", "import gone_away")])
    assert {plugin.origin for plugin in found} == {"built in"}
    assert ["SyntaxError" in str(faults[0]), "gone_away" in str(faults[1])] == [True, True]


def test_looking_names_up_imports_no_framework():
    code = (
        "import sys\nfrom automl_pt.plugins.implementations import survey\n"
        "from automl_pt.plugins.manager import load_plugins\n"
        "survey()\nplugins = load_plugins()\n"
        "plugins.backbone('resnet18'), plugins.dataset('digits')\n"
        "print([name for name in ('torch', 'torchvision', 'timm', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class ByHand:
    """A plugin that a program registers itself."""

    def __init__(self, *values: object) -> None:
        self.values = values

    @hookimpl
    def register_backbones(self):
        return self.values


def test_a_plugin_registered_by_hand():
    plugins = load_plugins()
    assert "by/hand" not in plugins.backbones()
    plugins.manager.register(ByHand(Backbone("by/hand", lambda classes, pretrained: None)), "hand")
    assert plugins.backbone("by/hand").name == "by/hand"
    assert plugins.provider(plugins.backbones(), "by/hand").origin == "registered by hand"
    plugins.manager.register(ByHand("wrong"), "other")
    with pytest.raises(PluginError, match=r"other \(registered by hand\): 'wrong'"):
        plugins.backbones()


def catalogue(names=lambda: ["zoo/a"], make=lambda name: Backbone(name, lambda classes, pretrained: None)):
    plugins = load_plugins()
    plugins.manager.register(ByHand(Catalogue("zoo/", names, make)), "hand")
    return plugins


def test_a_catalogue_is_asked_when_it_is_needed():
    asked = []
    plugins = catalogue(names=lambda: asked.append("names") or ["zoo/b", "zoo/a"])
    assert plugins.backbone("resnet18").name == "resnet18"
    assert plugins.backbone("zoo/any").name == "zoo/any"
    assert not asked
    assert [name for name in plugins.backbones() if name.startswith("zoo/")] == ["zoo/a", "zoo/b"]
    assert plugins.provider(plugins.backbones(), "zoo/a").name == "hand"
    with pytest.raises(KeyError):
        plugins.provider(plugins.backbones(), "no/such")


def test_a_catalogue_that_fails_is_named():
    with pytest.raises(PluginError, match=r"a catalogue does not list names(.|\n)*hand: zoo/: ZeroDivisionError"):
        list(catalogue(names=lambda: [1 / 0]).backbones())
    with pytest.raises(PluginError, match=r"a catalogue returns no value(.|\n)*zoo/a: ZeroDivisionError"):
        catalogue(make=lambda name: 1 / 0).backbone("zoo/a")
    with pytest.raises(
        PluginError, match=r"a catalogue does not return Backbone values(.|\n)*zoo/a: None(.|\n)*correct the plugin"
    ):
        catalogue(make=lambda name: None).backbone("zoo/a")


def test_a_catalogues_prefix_is_taken_once():
    plugins = catalogue()
    plugins.manager.register(ByHand(Catalogue("zoo/sub/", list, str)), "second")
    with pytest.raises(PluginError, match=r"registered once(.|\n)*'zoo/sub/' by hand .* and by second"):
        plugins.backbones()


CHANGES = {
    "Python's random state": "import random; random.seed(3)",
    "the working folder": "import os; os.chdir('/')",
    "NumPy's random state": "import numpy; numpy.random.seed(3)",
    "torch's seed": "import torch; torch.manual_seed(3)",
    "torch's default dtype": "import torch; torch.set_default_dtype(torch.float64)",
    "torch's default device": "import torch; torch.set_default_device('meta')",
    "torch's threads": "import torch; torch.set_num_threads(torch.get_num_threads() + 1)",
    "torch's deterministic mode": "import torch; torch.use_deterministic_algorithms(True)",
}


@pytest.mark.parametrize("state", CHANGES)
@pytest.mark.parametrize("place", ["import", "hook"])
def test_a_changed_global_state_is_noticed_and_put_back(state, place, tmp_path, caplog):
    import torch

    text = BACKBONE.format(name="mine/tiny")
    change = CHANGES[state]
    text = f"{change}\n{text}" if place == "import" else text.replace("    return [", f"    {change}\n    return [")
    before = (Path.cwd(), torch.get_default_dtype(), torch.initial_seed(), torch.get_num_threads())
    plugins = load_plugins([write(tmp_path / "careless.py", text)])
    assert "mine/tiny" in plugins.backbones()
    occasion = "it was imported" if place == "import" else "its hook register_backbones was called"
    [note] = plugins.notes
    assert f"changed {state} when {occasion}; it was restored" in note
    assert "careless" in note
    assert note in caplog.text
    assert (Path.cwd(), torch.get_default_dtype(), torch.initial_seed(), torch.get_num_threads()) == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_first_to_import_torch_may_not_change_it_either(tmp_path):
    text = "import torch; torch.set_default_dtype(torch.float64)\n" + BACKBONE.format(name="m/t")
    code = (
        "from automl_pt.plugins.manager import load_plugins\n"
        f"plugins = load_plugins([{write(tmp_path / 'careless.py', text)!r}])\n"
        "import torch; print(plugins.notes, torch.get_default_dtype())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "changed torch's default dtype when it was imported" in done.stdout
    assert done.stdout.strip().endswith("torch.float32")


def test_the_first_to_import_torch_and_numpy_has_changed_nothing_by_that(tmp_path):
    text = "import numpy, torch, torchvision\n" + BACKBONE.format(name="m/t")
    code = (
        "from automl_pt.plugins.manager import load_plugins\n"
        "import sys; assert 'torch' not in sys.modules\n"
        f"print(load_plugins([{write(tmp_path / 'careful.py', text)!r}]).notes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("place", ["import", "hook"])
def test_a_plugin_that_hangs_is_left_out(place, distribution, monkeypatch):
    monkeypatch.setattr("automl_pt.plugins.isolation.TIME_LIMIT", 0.2)
    hang, text = "import time; time.sleep(60)", BACKBONE.format(name="slow/tiny")
    text = f"{hang}\n{text}" if place == "import" else text.replace("    return [", f"    {hang}\n    return [")
    distribution("acme-slow", "0.3", f"acme_slow_{place}", text)
    plugins = load_plugins()
    assert plugins.backbone("resnet18").name == "resnet18"
    [fault] = plugins.faults
    assert f"acme_slow_{place} (acme-slow 0.3): TooSlow: it took longer than 0.2 s" in str(fault)


def test_the_time_limit_leaves_no_timer_behind():
    import signal

    from automl_pt.plugins.isolation import time_limit

    before = signal.getsignal(signal.SIGALRM)
    with time_limit(5):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_outside_the_main_thread_there_is_no_limit():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert "resnet18" in pool.submit(load_plugins).result().backbones()
