"""Where training starts: pretrained weights by default, said in the first lines, and had before anything is made."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny_runs import weights

from automl_pt.api.search import run_search
from automl_pt.backbone import Backbone, PublishedWeights
from automl_pt.builtin import pretrained
from automl_pt.cli import cli
from automl_pt.config import SearchConfig, TrainConfig, make
from automl_pt.core.errors import ConfigError, WeightsError
from automl_pt.dataset import Hints
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs.run import train
from automl_pt.runs.start import bring, choose_start, starts_pretrained
from automl_pt.study import resume

#: a backbone whose weights are a file beside the plugin, that is fetched by copying a marker
PLUGIN = """
from pathlib import Path
import torch
from torch import nn
from automl_pt import Backbone, PublishedWeights, hookimpl
from automl_pt.core.errors import WeightsError

FILE = Path(__file__).parent / "weights.pt"

def net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes))

def build(num_classes, pretrained):
    model = net(num_classes)
    if pretrained:
        model[0].load_state_dict(torch.load(FILE, weights_only=True))
    return model

def fetch():
    if not (Path(__file__).parent / "online").exists():
        raise WeightsError("the weights of shop cannot be fetched", given=str(FILE), remedy="go online")
    torch.save({name: tensor * 0 + 0.25 for name, tensor in net(2)[0].state_dict().items()}, FILE)
    return FILE

published = PublishedWeights(lambda: FILE if FILE.exists() else None, fetch, lambda: 5_000_000)

@hookimpl
def register_backbones():
    sold = {"has_pretrained": True, "weights_license": "MIT"}
    return [
        Backbone("shop", build, image_size=8, published=published, **sold),
        Backbone("plain", lambda classes, pretrained: net(classes), image_size=8),
    ]
"""
HAS = Backbone("has", lambda classes, pretrained: torch.nn.Identity(), has_pretrained=True, weights_license="MIT")
NONE = Backbone("none", lambda classes, pretrained: torch.nn.Identity())


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop" / "shop_plugin.py"
    path.parent.mkdir()
    path.write_text(PLUGIN)
    return path


@pytest.mark.parametrize(
    ("settings", "backbone", "hints", "expected"),
    [
        ({}, HAS, Hints(), True),
        ({}, NONE, Hints(), False),
        ({"pretrained": False}, HAS, Hints(), False),
        ({"pretrained": True}, HAS, Hints(pretrained=False), True),
        ({"weights": "w.pt"}, HAS, Hints(), False),
        ({}, HAS, Hints(pretrained=False), False),
        ({}, HAS, Hints(image_size=28), False),
        ({}, HAS, Hints(image_size=64), True),
        ({}, HAS, Hints(image_size=28, pretrained=True), True),
        ({"image_size": 96}, HAS, Hints(image_size=28), True),
        ({"image_size": 96}, HAS, Hints(image_size=8, pretrained=False), False),
        ({"image_size": 32}, HAS, Hints(), True),
    ],
)
def test_pretrained_is_the_default_where_it_fits(settings, backbone, hints, expected):
    assert starts_pretrained(make(TrainConfig, {"dataset": "x", **settings}), backbone, hints) is expected


@pytest.mark.parametrize(
    ("name", "dataset", "settings", "said"),
    [
        ("resnet18", "digits", {}, "11.7 M parameters, random weights: its images are small"),
        ("resnet18", "photos", {"pretrained": False}, "random weights: --from-scratch"),
        ("resnet18", "photos", {"weights": __file__}, f"from {__file__}"),
    ],
)
def test_the_first_line_says_where_the_network_starts(name, dataset, settings, said):
    plugins = load_plugins()
    dataset = dataset if dataset == "digits" else str(Path(__file__).parents[1])
    start = choose_start(make(TrainConfig, {"dataset": dataset, **settings}), plugins.backbone(name), plugins)
    assert said in start.text
    assert not start.pretrained


def test_a_file_of_weights_that_is_absent_and_weights_that_do_not_exist():
    plugins = load_plugins()
    with pytest.raises(WeightsError, match=r"(?s)not found.*nowhere\.pt.*--weights"):
        choose_start(make(TrainConfig, {"dataset": "digits", "weights": "nowhere.pt"}), NONE, plugins)
    with pytest.raises(WeightsError, match="none has no pretrained weights"):
        choose_start(make(TrainConfig, {"dataset": "digits", "pretrained": True}), NONE, plugins)


def test_absent_weights_end_a_search_and_a_run_before_anything_is_made(shop, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "shop")
    shared = ["--backbone", "shop", "--plugin", str(shop), "--epochs", "1", "--batch-size", "4"]
    for words in (["search", *shared, "--workers", "0", "--trials", "1"], ["train", *shared, "-o", "run"]):
        done = CliRunner().invoke(cli, [words[0], str(tiny_folder), *words[1:]])
        assert isinstance(done.exception, WeightsError)
        assert done.output.startswith("network: shop, pretrained (MIT; downloads about 5 MB)")
    assert sorted(path.name for path in (tmp_path / "shop").iterdir() if path.suffix != ".pyc") in (
        ["__pycache__", "shop_plugin.py"],
        ["shop_plugin.py"],
    )


def test_a_run_starts_from_fetched_weights_and_says_so(shop, tiny_folder, tmp_path):
    (tmp_path / "shop" / "online").touch()
    shared = ["--backbone", "shop", "--plugin", str(shop), "--epochs", "1", "--batch-size", "4", "--lr", "1e-12"]
    done = CliRunner().invoke(cli, ["train", str(tiny_folder), *shared, "-o", str(tmp_path / "run")])
    lines = done.output.splitlines()
    assert lines[0].endswith("downloads about 5 MB)")
    assert lines[1] == "images:  24 train, 12 val, 12 test; 3 classes; 8 px"
    assert lines[2].startswith("device:  cpu")
    assert lines[3] == "train:   learning rate 1e-12, batch size 4, at most 1 epoch"
    assert float(weights(tmp_path / "run")["0.weight"].mean()) == pytest.approx(0.25)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["pretrained"] is True
    assert "licence: MIT" in (tmp_path / "run" / "README.md").read_text()


def test_a_search_says_what_it_works_with(shop, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--backbone", "plain", "--plugin", str(shop), "--epochs", "1", "--workers", "0", "--trials", "1"]
    done = CliRunner().invoke(cli, ["search", str(tiny_folder), *options, "--no-report", "--lr", "0.01"])
    network, images, space, study = done.output.splitlines()[:4]
    assert network == "network: plain, random weights: it has no pretrained ones"
    assert images.startswith("images:  24 train, 12 val, 12 test; 3 classes; 8 px; on cpu")
    assert space == "search:  learning rate 0.01 alone; batch size 8 alone; 1 trial of at most 1 epoch"
    assert study.startswith("study:   studies/tiny, one at a time")


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_says_how_it_began_resumes_so(begun, shop, tiny_folder, tmp_path):
    """Earlier versions wrote false unless they were asked; the same command must not find another run there."""
    (tmp_path / "shop" / "online").touch()
    plugins = load_plugins((str(shop),))
    settings = {"backbone": "shop", "plugins": plugins, "epochs": 2, "batch_size": 4, "output": tmp_path / "run"}
    next(train(str(tiny_folder), pretrained=begun, **settings))
    assert [result.epoch for result in train(str(tiny_folder), **settings)] == [2]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["pretrained"] is begun
    first = load_file(next((tmp_path / "run").glob("weights-*.safetensors")))["0.weight"]
    assert (float(first.mean()) > 0.2) is begun


def test_a_study_that_says_how_it_began_resumes_so(shop, tiny_folder, tmp_path):
    settings = {"dataset": str(tiny_folder), "backbones": ("shop",), "plugins": (str(shop),), "epochs": 1}
    settings |= {"batch_sizes": (4,), "workers": 0, "trials": 1, "report": False}
    run_search(make(SearchConfig, {**settings, "pretrained": False}), tmp_path / "study")
    again = make(SearchConfig, {**settings, "trials": 2})
    assert resume.as_begun(again, tmp_path / "study").pretrained is False
    assert resume.as_begun(again, tmp_path / "another").pretrained is None
    result = run_search(again, tmp_path / "study")  # its weights are not there, and not needed
    assert len(result.trials) == 2


def test_an_average_needs_weights_that_all_trials_start_from(tiny_folder, tmp_path):
    settings = {"dataset": "digits", "backbones": ("resnet18",), "average": 2, "workers": 0}
    with pytest.raises(ConfigError, match="average needs pretrained or weights"):
        run_search(make(SearchConfig, settings), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_fetch_brings_weights_once_and_cached_lists_them(shop):
    (shop.parent / "online").touch()
    said = [CliRunner().invoke(cli, ["fetch", "shop", "--plugin", str(shop)]).output for _ in range(2)]
    assert said[0].startswith("shop: fetching about 5 MB\nshop: fetched, about 0 MB in ")
    assert said[0].endswith("(licence MIT)\n")
    assert said[1].startswith("shop: is here already, ")
    listed = CliRunner().invoke(cli, ["backbones", "sh*", "--cached", "--plugin", str(shop), "--json"])
    assert [row["name"] for row in json.loads(listed.output)] == ["shop"]
    nothing = CliRunner().invoke(cli, ["backbones", "plain", "--cached", "--plugin", str(shop)])
    assert "no pretrained weights are on this machine" in nothing.output
    assert nothing.exit_code == 0
    with pytest.raises(WeightsError, match="plain has no pretrained weights"):
        list(bring(load_plugins((str(shop),)).backbone("plain")))


def test_a_network_that_swallows_packets_is_given_up_in_seconds(monkeypatch):
    """A listening socket whose queue is full drops what comes, as a firewall does."""
    monkeypatch.setattr(pretrained, "CONNECT", 0.3)
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        since = time.monotonic()
        with pytest.raises(OSError, match=r"timed out|did not answer"):
            pretrained.reach(f"http://127.0.0.1:{port}/weights.pth")
        assert time.monotonic() - since < 30
        for one in waiting:
            one.close()


def test_published_weights_may_not_know_their_size():
    assert PublishedWeights(lambda: None, lambda: Path("w")).size() is None
