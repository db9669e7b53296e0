"""Files of weights: which are read, which are refused, and that none of them runs code."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile

import pytest
import safetensors.torch
import torch
from torch import nn

from automl_pt.backbones.weights import load_tensors, misfits, read_weights
from automl_pt.core.errors import WeightsError

RULE = "the file of weights is not intact safetensors or a plain state dict"


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(classes)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


class Canary:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (os.environ["AUTOML_PT_CANARY"],)


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """Return the folder that exists when code of a file has run, having seen that it can."""
    path = tmp_path / "canary"
    monkeypatch.setenv("AUTOML_PT_CANARY", str(path))
    pickle.loads(pickle.dumps(Canary()))
    path.rmdir()
    return path


@pytest.mark.parametrize("kind", ["safetensors", "zip", "stream"])
def test_plain_tensors_are_read(kind, tmp_path):
    path, state = tmp_path / "weights", network().state_dict()
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    found = read_weights(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def hostile_zip(path):
    torch.save({"weight": torch.zeros(2), "x": Canary()}, path)


def hostile_stream(path):
    torch.save({"weight": torch.zeros(2), "x": Canary()}, path, _use_new_zipfile_serialization=False)


def bare_pickle(path):
    path.write_bytes(pickle.dumps({"weight": Canary()}))


def plain_pickle(path):
    path.write_bytes(pickle.dumps({"weight": 1.0}))


def whole_model(path):
    torch.save(network(), path)


def legacy_tar(path):
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Canary())
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def torchscript(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Canary()))
        archive.writestr("model/constants.pkl", pickle.dumps(Canary()))
        archive.writestr("model/code/__torch__.py", "class Model: pass")


def compressed(path):
    plain = path.with_suffix(".plain")
    torch.save({"weight": torch.zeros(1000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))


def checkpoint(path):
    torch.save({"epoch": 3, "state_dict": network().state_dict()}, path)


def a_list(path):
    torch.save([torch.zeros(2)], path)


def truncated(path):
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


def truncated_safetensors(path):
    safetensors.torch.save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-20])


def empty(path):
    path.write_bytes(b"")


def web_page(path):
    path.write_text("<html>not found</html>")


REFUSED = {
    hostile_zip: "it would run posix.mkdir when loaded",
    hostile_stream: "it would run posix.mkdir when loaded",
    bare_pickle: "something other than tensors by name",
    plain_pickle: "something other than tensors by name",
    whole_model: "it would run torch.nn.modules.container.Sequential when loaded",
    legacy_tar: "a tar archive",
    torchscript: "a TorchScript program",
    compressed: "a compressed archive",
    checkpoint: "entry 'epoch' is not a tensor; give the state dict alone",
    a_list: "it holds list, not tensors by name",
    truncated: "",
    truncated_safetensors: "",
    empty: "neither safetensors nor written by torch.save",
    web_page: "neither safetensors nor written by torch.save",
}


@pytest.mark.parametrize("write", REFUSED, ids=lambda write: write.__name__)
def test_anything_else_is_refused_and_runs_nothing(write, tmp_path, canary):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert caught.value.rule == RULE
    assert str(path) in caught.value.given
    assert REFUSED[write] in caught.value.given
    assert "safetensors.torch.save_file" in caught.value.remedy
    assert not canary.exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"(?s)not found.*nowhere.*--weights"):
        read_weights(tmp_path / "nowhere")


def test_tensors_of_the_same_network_fit_whatever_the_head():
    assert misfits(network(3), network(7).state_dict(), ["3"]) == []


def test_misfits_are_named():
    state = network(3).state_dict()
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    del state["1.weight"], state["1.num_batches_tracked"]
    state["extra"] = torch.zeros(1)
    assert misfits(network(3), state, ["3"]) == [
        "0.weight is [4, 3, 5, 5], the network's is [4, 3, 3, 3]",
        "1.weight is missing",
        "extra is not in the network",
    ]


@pytest.mark.parametrize(("classes", "head_taken"), [(3, True), (7, False)])
def test_a_head_of_the_same_size_is_taken_and_another_is_not(classes, head_taken):
    model, source = network(3), network(classes)
    with torch.no_grad():
        source[3].bias.fill_(9.0)
    before = model[3].bias.clone()
    load_tensors(model, source.state_dict(), ["3"])
    assert torch.equal(model[0].weight, source[0].weight)
    assert torch.equal(model[3].bias, source[3].bias if head_taken else before)


def test_half_a_head_is_not_taken():
    model, state = network(3), network(3).state_dict()
    del state["3.bias"]
    state["3.weight"] = torch.zeros_like(state["3.weight"])
    load_tensors(model, state, ["3"])
    assert bool((model[3].weight != 0).any())
