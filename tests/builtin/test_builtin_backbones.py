"""Built-in backbones: names, stems for small images, heads, published weights from a real server."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from automl_pt.backbones.build import build_model
from automl_pt.builtin import pretrained, timm_backbones, timm_weights
from automl_pt.builtin.torchvision_backbones import DENSENETS, RESNETS, modern_densenet_names
from automl_pt.core.errors import WeightsError
from automl_pt.plugins.manager import load_plugins

NAMES = (*RESNETS, *DENSENETS)


@pytest.fixture(scope="module")
def plugins():
    return load_plugins()


def test_the_promised_networks_are_there(plugins):
    numbers = {f"densenet{n}" for n in (121, 161, 169, 201)} | {f"resnet{n}" for n in (18, 34, 50, 101, 152)}
    others = {"resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2"}
    assert set(NAMES) == numbers | others <= set(plugins.backbones())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [32, 64])
def test_the_recipe_builds_the_same_network(name, size, plugins):
    backbone = plugins.backbone(name)
    names = {}
    with torch.device("meta"):  # shapes alone
        exec(backbone.recipe(5, size), names)  # the lines a model directory's README gives
        mine = backbone.adapt(backbone.build(5, False), size)
    shapes = {key: tensor.shape for key, tensor in mine.state_dict().items()}
    assert {key: tensor.shape for key, tensor in names["model"].state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("name", "stem", "pool"), [("resnet18", "conv1", "maxpool"), ("densenet121", "conv0", "pool0")]
)
@pytest.mark.parametrize("size", [8, 63, 64])
def test_the_stem_follows_the_image_size(name, stem, pool, size, plugins):
    model = build_model(plugins.backbone(name), 3, size, seed=1)
    home = model if name == "resnet18" else model.features
    convolution = getattr(home, stem)
    assert convolution.kernel_size == ((3, 3) if size < 64 else (7, 7))
    assert convolution.stride == ((1, 1) if size < 64 else (2, 2))
    assert isinstance(getattr(home, pool), nn.Identity if size < 64 else nn.MaxPool2d)
    assert convolution.weight.requires_grad


def test_the_small_stem_starts_as_he_initialisation_would(plugins):
    """Scaled by 7/3, the middle of a 7 x 7 kernel has the standard deviation that He's rule gives a 3 x 3 one."""
    model = build_model(plugins.backbone("resnet18"), 3, 32, seed=1)
    assert float(model.conv1.weight.detach().std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)


def test_the_stem_draws_no_random_numbers(plugins):
    small, large = (build_model(plugins.backbone("resnet18"), 3, size, seed=1) for size in (32, 64))
    assert torch.equal(small.layer1[0].conv1.weight, large.layer1[0].conv1.weight)
    assert torch.equal(small.fc.weight, large.fc.weight)


def test_old_densenet_names_are_renamed():
    old = [
        "features.denseblock1.denselayer1.norm.1.weight",
        "features.denseblock1.denselayer12.conv.2.weight",
        "features.norm5.weight",
    ]
    new = [
        "features.denseblock1.denselayer1.norm1.weight",
        "features.denseblock1.denselayer12.conv2.weight",
        "features.norm5.weight",
    ]
    assert list(modern_densenet_names(nn.Identity(), dict.fromkeys(old))) == new


def test_timm_models_are_listed_with_and_without_tag(plugins):
    names = set(plugins.backbones())
    assert {"timm/resnet18", "timm/resnet18.a1_in1k", "timm/vit_tiny_patch16_224"} <= names
    assert len([name for name in names if name.startswith("timm/")]) > 1000
    vit = plugins.backbone("timm/vit_tiny_patch16_384")
    assert (vit.image_size, vit.mean, vit.has_pretrained, vit.weights_license) == (384, (0.5,) * 3, True, "apache-2.0")


@pytest.fixture
def names_file(tmp_path, monkeypatch):
    """Return the file of timm's names in an empty cache folder, and forget the names known so far."""
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path))
    timm_backbones._records.cache_clear()
    yield tmp_path / f"timm-{version('timm')}-{timm_backbones.FORMAT}.json"
    timm_backbones._records.cache_clear()


def test_timm_names_come_from_the_cache_without_timm(names_file):
    count = len(timm_backbones.names())
    code = (
        "import sys\nfrom automl_pt.plugins.manager import load_plugins\n"
        "print(len(load_plugins().backbones()), 'timm' in sys.modules, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "AUTOML_PT_NO_PLUGINS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [str(count + len(NAMES)), "False", "False"]


def test_a_damaged_cache_of_names_is_made_again(names_file):
    names_file.write_text("{damaged")
    assert len(timm_backbones.names()) > 1000
    assert "resnet18" in json.loads(names_file.read_text())


def test_a_cache_that_cannot_be_written_is_said_in_a_plain_line(tmp_path):
    (tmp_path / "file").write_text("")
    code = (
        "from pathlib import Path\nfrom automl_pt.builtin import timm_backbones\n"
        f"print(timm_backbones._write(Path({str(tmp_path / 'file' / 'timm.json')!r}), {{'resnet18': {{}}}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'resnet18': {}}"
    [line] = done.stderr.splitlines()
    assert line.startswith("names of timm models are not cached, and each command imports timm: ")
    assert "warn" not in line.lower()


@pytest.mark.parametrize("size", [32, 224])
def test_a_transformer_is_told_its_image_size(size, plugins):
    backbone = plugins.backbone("timm/test_vit")
    build_model(backbone, 3, size, seed=1)
    names = {}
    exec(backbone.recipe(3, size), names)
    assert names["model"](torch.zeros(1, 3, size, size)).shape == (1, 3)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files; tells the hub's client what it wants to know of them."""

    def end_headers(self):
        self.send_header("X-Repo-Commit", "c0ffee")
        self.send_header("ETag", '"abc"')
        super().end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    """Return the folder and the address of a running server."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return torch.hub's checkpoint folder, in an empty home."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def published(server, monkeypatch):
    """Publish random weights of a network where torchvision believes its own to be; return the tensors."""
    from torchvision.models import get_model, get_model_weights

    def publish(name: str, *, old_names: bool = False):
        folder, address = server
        torch.manual_seed(99)
        state = get_model(name).state_dict()
        renamed = {
            key.replace("denselayer1.norm1.", "denselayer1.norm.1.") if old_names else key: tensor
            for key, tensor in state.items()
        }
        torch.save(renamed, folder / "weights", _use_new_zipfile_serialization=not old_names)
        digest = sha256((folder / "weights").read_bytes()).hexdigest()
        (folder / "weights").rename(folder / f"{name}-{digest[:8]}.pth")
        monkeypatch.setattr(get_model_weights(name)["DEFAULT"].value, "url", f"{address}/{name}-{digest[:8]}.pth")
        return state

    return publish


@pytest.mark.parametrize(("name", "old_names"), [("resnet18", False), ("densenet121", True)])
def test_torchvision_weights_are_fetched_checked_and_kept(name, old_names, published, hub, server, plugins):
    state = published(name, old_names=old_names)
    for _ in range(2):  # from the network, then from the cache
        model = build_model(plugins.backbone(name), 4, 64, pretrained=True, seed=1)
        head = plugins.backbone(name).head
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[key]) or key.startswith(head)
        assert model.get_parameter(f"{head}.weight").shape[0] == 4
        for file in server[0].iterdir():
            file.unlink()
    assert len(list(hub.iterdir())) == 1


def test_absent_torchvision_weights_name_the_file_before_the_run(hub, server, plugins, monkeypatch):
    from torchvision.models import get_model_weights

    monkeypatch.setattr(get_model_weights("resnet18")["DEFAULT"].value, "url", f"{server[1]}/resnet18-0123abcd.pth")
    with pytest.raises(WeightsError) as caught:
        build_model(plugins.backbone("resnet18"), 4, 64, pretrained=True, seed=1)
    assert caught.value.rule == "the pretrained weights of resnet18 are not on this machine, and cannot be fetched"
    assert str(hub / "resnet18-0123abcd.pth") in caught.value.given
    assert "404" in caught.value.given
    assert all(word in caught.value.remedy for word in ("`automl-pt fetch resnet18`", "--from-scratch", "--weights"))
    assert "automl-pt-lite" in caught.value.remedy
    assert not list(hub.glob("*"))


def test_a_search_without_its_weights_starts_no_trial(hub, server, tmp_path, monkeypatch):
    from torchvision.models import get_model_weights

    from automl_pt import search

    monkeypatch.setattr(get_model_weights("resnet18")["DEFAULT"].value, "url", f"{server[1]}/resnet18-0123abcd.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="resnet18-0123abcd.pth"):
        search("digits", pretrained=True, trials=1, name="s", threads=1)
    assert not (tmp_path / "studies").exists()


def test_damaged_torchvision_weights_are_refused(published, hub, plugins):
    published("resnet18")
    build_model(plugins.backbone("resnet18"), 4, 64, pretrained=True, seed=1)
    [file] = hub.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"(?s)does not match its name.*resnet18.*SHA-256.*delete the file"):
        build_model(plugins.backbone("resnet18"), 4, 64, pretrained=True, seed=1)


@pytest.fixture
def hugging_face(server, tmp_path, monkeypatch):
    """Point the hub's client at our server, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", server[1])
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server[1] + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return server[0]


def test_timm_weights_are_fetched_and_kept(hugging_face, plugins):
    import timm

    torch.manual_seed(99)
    state = timm.create_model("test_resnet").state_dict()
    file = hugging_face / "timm" / "test_resnet.r160_in1k" / "resolve" / "main" / "model.safetensors"
    file.parent.mkdir(parents=True)
    safetensors.torch.save_file(state, file)
    for _ in range(2):  # from the network, then from the cache
        model = build_model(plugins.backbone("timm/test_resnet"), 4, 64, pretrained=True, seed=1)
        assert torch.equal(model.conv1[0].weight, state["conv1.0.weight"])
        assert model.fc.weight.shape[0] == 4
        file.unlink(missing_ok=True)


def test_absent_timm_weights_name_the_file_at_once(hugging_face, plugins, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    with pytest.raises(WeightsError) as caught:
        build_model(plugins.backbone("timm/test_resnet"), 4, 64, pretrained=True, seed=1)
    assert "model.safetensors of timm/test_resnet.r160_in1k in " in caught.value.given
    assert "models--timm--test_resnet.r160_in1k" in caught.value.given
    assert "refused" in caught.value.given
    assert "--weights" in caught.value.remedy


def test_timm_weights_when_the_hub_is_switched_off(hugging_face, plugins, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        build_model(plugins.backbone("timm/test_resnet"), 4, 64, pretrained=True, seed=1)


def test_timm_weights_of_another_network_are_refused(hugging_face, plugins):
    file = hugging_face / "timm" / "test_resnet.r160_in1k" / "resolve" / "main" / "model.safetensors"
    file.parent.mkdir(parents=True)
    safetensors.torch.save_file({"conv1.0.weight": torch.zeros(1)}, file)
    with pytest.raises(
        WeightsError, match=r"(?s)damaged, or of another network.*for timm/test_resnet: .*delete the file"
    ):
        build_model(plugins.backbone("timm/test_resnet"), 4, 64, pretrained=True, seed=1)


@pytest.mark.parametrize(
    ("filename", "names"),
    [
        (None, ("model.safetensors", "pytorch_model.bin")),
        ("pytorch_model.bin", ("model.safetensors", "pytorch_model.bin")),
        ("open_clip_pytorch_model.bin", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")),
        ("other.bin", ("other.safetensors", "other.bin")),
        ("weights.npz", ("weights.npz",)),
    ],
)
def test_safe_files_are_asked_for_first(filename, names):
    assert timm_weights.hub_names(filename) == names


def test_weights_by_url_are_kept_in_torch_hubs_cache(server, hub):
    from types import SimpleNamespace

    (server[0] / "net-abc.pth").write_bytes(b"tensors")
    path = timm_weights._url_file("net", SimpleNamespace(url=f"{server[1]}/net-abc.pth"))
    assert path == hub / "net-abc.pth"
    assert path.read_bytes() == b"tensors"
    named = timm_weights._url_file("net", SimpleNamespace(url=(f"{server[1]}/net-abc.pth", "other.pth")))
    assert named == hub / "other.pth"


def test_a_download_that_breaks_off_leaves_nothing(server, tmp_path):
    with pytest.raises(WeightsError, match=r"(?s)weights of net are not on this machine.*weights\.pth \(from http"):
        pretrained.fetch(f"{server[1]}/absent", tmp_path / "weights.pth", "net")
    assert [path.name for path in tmp_path.iterdir()] == ["served"]


def test_backbones_are_plain_values(plugins):
    """Names, sizes and licences can be written down as JSON, for listings and model directories."""
    backbone = plugins.backbone("timm/resnet18")
    assert json.dumps([backbone.name, backbone.image_size, backbone.mean, backbone.weights_license])
    assert Path(backbone.name).name == "resnet18"
