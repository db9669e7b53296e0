"""The shipped contract: what is right passes, and every planted fault is named with where to look."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from automl_pt.backbone import Backbone
from automl_pt.core.errors import PluginError, UnknownNameError
from automl_pt.dataset import Dataset, Hints, LabeledImages
from automl_pt.testing import check_backbone, check_dataset
from automl_pt.testing.backbones import claimed_sizes


class Network(nn.Module):
    """A right network, for faults to be planted in."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, classes)

    def features(self, images):
        return self.dropout(self.norm(self.conv(images)).relu().mean((2, 3)))

    def forward(self, images):
        return self.head(self.features(images))


def backbone(kind: type[nn.Module] = Network, **fields) -> Backbone:
    return Backbone("mine", lambda classes, pretrained: kind(classes), **{"image_size": 16, "head": "head", **fields})


class WrongShape(Network):
    def forward(self, images):
        logits = super().forward(images)
        return logits if len(images) == 1 else logits[:-1]


class HalfPrecision(Network):
    def forward(self, images):
        return super().forward(images).half()


class NotFinite(Network):
    def forward(self, images):
        return super().forward(images) / 0


class FollowsElsewhere(Network):
    def __init__(self, classes):
        super().__init__(classes)
        self.extra = nn.Linear(1, classes)


class Unseeded(Network):
    def __init__(self, classes):
        super().__init__(classes)
        with torch.no_grad():
            self.conv.bias.copy_(torch.from_numpy(np.random.default_rng().random(8)))


class AlwaysTheSame(Network):
    def __init__(self, classes):
        super().__init__(classes)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)


class Frozen(Network):
    def features(self, images):
        return super().features(images).detach()


class RandomInEval(Network):
    def forward(self, images):
        return super().forward(images) + torch.rand(1)


class CountsInEval(Network):
    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, images):
        self.seen += 1
        return super().forward(images)


class NeverTrains(Network):
    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


class DropoutUnused(Network):
    def __init__(self, classes):
        super().__init__(classes)
        self.norm = nn.Identity()

    def features(self, images):
        return self.conv(images).relu().mean((2, 3))


class HiddenState(Network):
    def __init__(self, classes):
        super().__init__(classes)
        self.scale = torch.rand(1) + 0.5

    def forward(self, images):
        return super().forward(images) * self.scale


class NamesChange(Network):
    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer(f"buffer{torch.initial_seed()}", torch.zeros(1))


class SharedCopy(Network):
    def __deepcopy__(self, memo):
        return self


class FlatView(Network):
    def __init__(self, classes):
        super().__init__(classes)
        self.head = nn.Linear(8 * 16 * 16, classes)

    def features(self, images):
        return self.norm(self.conv(images)).view(len(images), -1)


class MeanOfBatch(Network):
    def forward(self, images):
        logits = super().forward(images)
        return logits - logits.mean(0, keepdim=True) if len(images) > 1 else logits


class ByMemory(Network):
    def forward(self, images):
        return super().forward(images + images.as_strided(images.shape, torch.empty(images.shape).stride()))


class FixedType(Network):
    def forward(self, images):
        return super().forward(images) * (float("inf") if torch.is_autocast_enabled("cpu") else 1.0)


class ScalesLogits(Network):
    def forward(self, images):
        return 2 * super().forward(images)


class HeadOfTwo(Network):
    def __init__(self, classes):
        super().__init__(classes)
        self.head = nn.Sequential(nn.Linear(8, classes), nn.Softplus())


FAULTS = {
    WrongShape: (r"logits are float32 \[3, 7\] for 3 images", r"torch.float32 \[2, 7\] at 16 px", r"forward\(\)"),
    HalfPrecision: (r"logits are float32", r"torch.float16", r"forward\(\)"),
    NotFinite: ("logits are finite", "inf", "initialisation"),
    FollowsElsewhere: ("depend on the number of classes are the head's", "extra.weight", r"Backbone\(head="),
    Unseeded: ("the same seed gives the same weights", "conv.bias", "draw them from torch only"),
    AlwaysTheSame: ("another seed gives other weights", "all are equal", "a fixed seed"),
    Frozen: ("gradients reach the first and the last parameter", "conv.weight", r"detach\(\)"),
    RandomInEval: ("eval mode gives the same logits twice", "differ", "random numbers"),
    CountsInEval: ("eval mode changes no tensor", "seen", "buffers"),
    NeverTrains: ("train mode updates batch normalisation", "no statistics", r"train\(\)"),
    DropoutUnused: ("train mode applies dropout", "equal logits twice", "never used"),
    HiddenState: ("a saved and loaded model gives the same logits", "differ", "registered buffer"),
    NamesChange: ("state_dict names the same tensors", "buffer", "registered buffer"),
    SharedCopy: ("a deep copy shares no parameter", "conv.weight", "__deepcopy__"),
    MeanOfBatch: ("a single image gets the same logits", "differ by", "squeeze"),
    ByMemory: ("channels_last gives the same logits", "differ by", r"view\(\)"),
    ScalesLogits: ("a linear head computes the logits", "the logits are not the output of head", r"Backbone\(head="),
    FixedType: ("autocast to bf16 gives finite logits", "inf", "fixed dtype"),
}


def test_a_right_backbone_passes():
    check_backbone(backbone())
    check_backbone(backbone(head=None, min_image_size=1, image_size=40))
    check_backbone(backbone(HeadOfTwo))  # which has no linear probe


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_of_a_backbone_is_named(fault):
    expected, came, look = FAULTS[fault]
    with pytest.raises(PluginError) as caught:
        check_backbone(backbone(fault))
    for words, text in ((expected, caught.value.rule), (came, caught.value.given), (look, caught.value.remedy)):
        assert re.search(words, text), caught.value


def test_a_layout_that_is_not_taken_is_told():
    with pytest.raises(
        PluginError, match=r"(?s)images in channels_last memory.*mine: RuntimeError: view.*reshape\(\).*forward\(\)"
    ):
        check_backbone(backbone(FlatView))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"min_image_size": 0}, "0 < min_image_size <= image_size"),
        ({"min_image_size": 17}, "0 < min_image_size <= image_size"),
        ({"mean": (0.5, 0.5)}, "mean is three numbers"),
        ({"std": (0.5, 0.5, float("nan"))}, "std is three numbers"),
        ({"std": (0.5, 0.5, 0.0)}, "std is above 0"),
        ({"has_pretrained": True}, "pretrained weights have a licence"),
        ({"weights_sha256": "abc"}, "weights_sha256 is 64 hexadecimal digits"),
    ],
)
def test_what_a_backbone_says_of_itself_is_checked(fields, said):
    with pytest.raises(PluginError, match=rf"(?s){said}.*Backbone\('mine', \.\.\.\)"):
        check_backbone(backbone(**fields))


def test_pretrained_weights_that_are_ignored():
    with pytest.raises(PluginError, match=r"(?s)pretrained weights are loaded or refused.*random: \['conv\.weight'"):
        check_backbone(backbone(has_pretrained=True, weights_license="MIT"))


def test_pretrained_weights_that_are_loaded_or_refused():
    def build(classes, pretrained):
        if pretrained:
            import socket

            socket.create_connection(("127.0.0.1", 9))  # the network is closed during the check
        return Network(classes)

    def load(classes, pretrained):
        model = Network(classes)
        if pretrained:
            for name, parameter in model.named_parameters():
                if not name.startswith("head"):
                    nn.init.constant_(parameter, 0.5)
        return model

    for function in (build, load):
        check_backbone(replace(backbone(has_pretrained=True, weights_license="MIT"), build=function))


def test_a_builder_that_needs_the_network():
    def build(classes, pretrained):
        import socket

        socket.create_connection(("localhost", 9))

    with pytest.raises(PluginError, match=r"(?s)did not return a model.*the network is closed during this check"):
        check_backbone(replace(backbone(), build=build))


def test_sizes_that_are_claimed_are_checked():
    assert claimed_sizes(backbone()) == [16]
    assert claimed_sizes(backbone(min_image_size=8, image_size=224)) == [32, 8, 224]
    assert claimed_sizes(backbone(min_image_size=64, image_size=64)) == [64]


def test_names_are_looked_up():
    check_dataset("digits")
    with pytest.raises(UnknownNameError, match="unknown backbone"):
        check_backbone("no/such")
    with pytest.raises(UnknownNameError, match="unknown dataset"):
        check_dataset("no/such")


IMAGES = [np.full((8, 8), shade, np.uint8) for shade in range(0, 60, 10)]


def dataset(hints: Hints | None = None, **fields) -> Dataset:
    values = {"images": IMAGES, "labels": [0, 1] * 3, "classes": ["a", "b"], **fields}
    return Dataset("mine", lambda root: LabeledImages(**values), hints=hints or Hints())


def unsteady() -> Dataset:
    random = np.random.default_rng(1)

    def load(root):
        return LabeledImages([random.integers(0, 256, (8, 8), np.uint8) for _ in range(6)], [0, 1] * 3, ["a", "b"])

    return Dataset("mine", load)


def unordered() -> Dataset:
    random = np.random.default_rng(1)
    return Dataset("mine", lambda root: LabeledImages(IMAGES, random.permutation([0, 1] * 3), ["a", "b"]))


def broken_file(folder: Path) -> list[Path]:
    (folder / "broken.png").write_bytes(b"no image")
    return [folder / "broken.png"] * 6


#: two classes, of which one is the other's mirror image
MIRRORED = [np.tile(np.arange(0, 80, 10, np.uint8), (8, 1))[:, :: (1, -1)[index % 2]] for index in range(6)]
THREE = ["train", "val", "test"]
DATA_FAULTS = {
    "no images": (lambda: dataset(images=[], labels=[]), "as many labels"),
    "labels too few": (lambda: dataset(labels=[0, 1]), r"as many labels(.|\n)*'images': 6, 'labels': 2"),
    "splits too few": (lambda: dataset(splits=["train"]), r"as many labels(.|\n)*'splits': 1"),
    "one class": (lambda: dataset(labels=[0] * 6, classes=["a"]), "two classes or more"),
    "class twice": (lambda: dataset(classes=["a", "a"]), r"class names differ(.|\n)*'a'"),
    "fractional labels": (lambda: dataset(labels=[0.5] * 6), r"labels are integers(.|\n)*float64"),
    "labels from 1": (
        lambda: dataset(labels=[1, 2] * 3),
        r"labels lie in 0 to 1(.|\n)*1 to 2(.|\n)*count classes from 0",
    ),
    "empty class": (lambda: dataset(classes=["a", "b", "c"]), r"every class has an image(.|\n)*none of \['c'\]"),
    "unknown split": (lambda: dataset(splits=["valid"] * 6), r"a split is one of train, val, test(.|\n)*'valid'"),
    "no trainable parameters": (lambda: dataset(splits=["test"] * 6), "some images are for training"),
    "name in two splits": (lambda: dataset(splits=THREE * 2, names=["x"] * 6), r"splits share no names(.|\n)*'x'"),
    "group in two splits": (lambda: dataset(splits=THREE * 2, groups=["x"] * 6), r"splits share no groups(.|\n)*'x'"),
    "name twice": (lambda: dataset(names=["x"] * 6), r"names are unique(.|\n)*twice: \['x'\]"),
    "labels in another order": (unordered, r"the same labels in the same order(.|\n)*without sorted"),
    "other images": (unsteady, r"loading twice gives the same images(.|\n)*image 0 differs"),
    "floats": (lambda: dataset(images=[np.zeros((8, 8))] * 6), r"a Path or a uint8 array(.|\n)*ndarray float64"),
    "four channels": (lambda: dataset(images=[np.zeros((8, 8, 4), np.uint8)] * 6), "images are readable"),
    "hint of 0": (lambda: dataset(hints=Hints(image_size=0)), r"hinted image size is above 0(.|\n)*Hints\(image_size"),
    "mirrored into another class": (
        lambda: dataset(images=MIRRORED),
        r"a mirrored image belongs to its class(.|\n)*image 0 mirrored is image 5, (.|\n)*horizontal_flip=False",
    ),
    "hint of another type": (
        lambda: dataset(hints=Hints(shift="no")),
        r"hints are True or False(.|\n)*shift='no'(.|\n)*Hints\(shift=",
    ),
    "nothing returned": (lambda: Dataset("mine", lambda root: None), r"returns LabeledImages(.|\n)*mine: NoneType"),
    "load fails": (lambda: Dataset("mine", lambda root: 1 / 0), r"mine: ZeroDivisionError(.|\n)*Dataset\(load="),
}


def test_a_right_dataset_passes(tmp_path):
    check_dataset(dataset(splits=["train", "train", "val", "val", "test", "test"], names=list("abcdef")))
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    check_dataset(dataset(images=paths), root=tmp_path)


@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_a_planted_fault_of_a_dataset_is_named(fault):
    make, said = DATA_FAULTS[fault]
    with pytest.raises(PluginError, match=said):
        check_dataset(make())


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(PluginError, match=r"(?s)images are readable.*image 0: .*broken\.png"):
        check_dataset(dataset(images=broken_file(tmp_path)))


class ZeroHead(Network):
    def __init__(self, classes):
        super().__init__(classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


class ZeroBranch(Network):
    def __init__(self, classes):
        super().__init__(classes)
        self.norm = nn.Identity()
        self.scale = nn.Parameter(torch.zeros(1))

    def features(self, images):
        features = self.conv(images).relu().mean((2, 3))
        return features + self.scale * self.dropout(features)


@pytest.mark.parametrize("kind", [ZeroHead, ZeroBranch])
def test_what_begins_at_zero_is_no_fault(kind):
    check_backbone(backbone(kind))


def test_hints_that_fit_the_images_pass():
    check_dataset(dataset(images=MIRRORED, hints=Hints(horizontal_flip=False, shift=False)))
    check_dataset(dataset(images=MIRRORED, hints=Hints(horizontal_flip=False)))


def test_a_head_of_the_wrong_size_is_named():
    with pytest.raises(
        PluginError, match=r"(?s)does not return logits \[images, classes\].*mine: \[1, 5\] for 1 image and 7"
    ):
        check_backbone(replace(backbone(), build=lambda classes, pretrained: Network(5)))


def test_at_least_fifteen_faults_are_planted():
    assert len(FAULTS) + len(DATA_FAULTS) >= 38
