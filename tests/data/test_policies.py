"""Augmentations by name and by list: what they do to which image, when, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_folder
from test_trainer import CPU, MEAN, STD, network, pixels, settings
from tiny_runs import write_plugin
from torch.nn import functional as F

import automl_pt
from automl_pt.builtin.augmentations import TRANSFORMS
from automl_pt.cli.options import build_config
from automl_pt.config import TrainConfig
from automl_pt.core.errors import AutomlError, CheckpointError, ConfigError, PluginError, UnknownNameError
from automl_pt.data.loader import Loader
from automl_pt.data.policy import Policy, make_policy, require_policy
from automl_pt.dataset import Hints
from automl_pt.plugins.augmentations import Augmentation
from automl_pt.plugins.manager import load_plugins
from automl_pt.testing import check_augmentation
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.loop import Training, train

PLUGINS = load_plugins()
#: arguments with which each transform of the list can be made
ARGUMENTS: dict[str, dict[str, Any]] = {
    "resize": {"size": 20},
    "center_crop": {"size": 10},
    "pad": {"padding": 3, "padding_mode": "reflect"},
    "random_crop": {"size": 8},
    "random_resized_crop": {"size": 12, "scale": [0.5, 1.0]},
    "color_jitter": {"brightness": 0.3, "hue": 0.1},
    "random_rotation": {"degrees": 30},
    "random_affine": {"degrees": 10, "translate": [0.1, 0.1], "scale": [0.8, 1.2], "shear": 5},
    "random_erasing": {"p": 1.0},
}
POLICIES = ("none", "shift-flip", "crop", "trivial", "rand", "mixup", "cutmix")


def config(**changes: Any) -> TrainConfig:
    return settings(augment="always", **changes)


def loader(policy: Policy, *, seed: int = 1, augmented: int = 3, batch_size: int = 5, shuffle: bool = True) -> Loader:
    shared: dict[str, Any] = {"mean": MEAN, "std": STD, "seed": seed, "device": CPU, "hints": Hints()}
    return Loader(
        pixels(23), batch_size=batch_size, augmented_epochs=augmented, shuffle=shuffle, policy=policy, **shared
    )


def made_of(settings: TrainConfig) -> Policy:
    return make_policy(settings.augmentation, settings.transforms, PLUGINS, 8, 3)


def policy(name: str, transforms: tuple[dict[str, Any], ...] = ()) -> Policy:
    return made_of(config(augmentation=name, transforms=transforms))


def begun(name: str, **changes: Any) -> Training:
    made = config(augmentation=name, **changes)
    val = Loader(
        *(pixels(10, seed=1),), batch_size=4, augmented_epochs=0, shuffle=False, mean=MEAN, std=STD, seed=1,
        device=CPU, hints=Hints(),
    )  # fmt: skip
    return Training(network(dropout=0.3), loader(policy(name), batch_size=4), val, made, device=CPU, precision="fp32")


@pytest.mark.parametrize("name", [*POLICIES, *TRANSFORMS])
def test_the_built_in_ones_keep_the_contract(name: str) -> None:
    check_augmentation(name, **ARGUMENTS.get(name, {}))


def test_the_default_is_what_it_was() -> None:
    """No transform, no mixing, and batches equal to those of a loader that is told nothing."""
    shared: dict[str, Any] = {"mean": MEAN, "std": STD, "seed": 1, "device": CPU, "hints": Hints()}
    plain = Loader(pixels(23), batch_size=5, augmented_epochs=3, shuffle=True, **shared)
    assert policy(TrainConfig(dataset="x").augmentation) == Policy(classes=3)
    for (ours, one), (theirs, two) in zip(loader(policy("shift-flip")).epoch(1), plain.epoch(1), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["crop", "trivial", "rand", "crop+mixup", "cutmix", "mixup+cutmix"])
def test_batches_depend_on_seed_epoch_and_index_alone(name: str) -> None:
    def batches(epoch: int, start: int = 0, **changes: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        torch.manual_seed(len(changes) + start)  # which must not matter
        before = torch.get_rng_state()
        found = list(loader(policy(name), **changes).epoch(epoch, start))
        assert torch.equal(before, torch.get_rng_state())
        return found

    first = batches(1)
    for (images, labels), (again, same) in zip(first[2:], batches(1, start=2), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)
    assert not torch.equal(first[0][0], batches(2)[0][0])
    assert not torch.equal(first[0][0], batches(1, seed=2)[0][0])


@pytest.mark.parametrize("name", ["crop", "trivial"])
def test_an_image_is_changed_alike_in_any_batch(name: str) -> None:
    whole, parts = (
        torch.cat([images for images, _ in loader(policy(name), batch_size=size, shuffle=False).epoch(1)])
        for size in (23, 5)
    )
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("name", ["none", "crop", "trivial", "mixup"])
def test_after_the_augmented_epochs_images_are_as_they_are(name: str) -> None:
    plain = list(loader(Policy(), augmented=0).epoch(2))
    for (images, labels), (own, numbers) in zip(loader(policy(name), augmented=1).epoch(2), plain, strict=True):
        assert torch.equal(images, own)
        assert torch.equal(labels.argmax(1) if labels.dim() == 2 else labels, numbers)


def test_flips_and_shifts_go_where_a_policy_has_none() -> None:
    assert [(policy(name).shift, policy(name).flip) for name in ("none", "crop", "mixup", "crop+mixup")] == [
        (False, False),
        (False, True),
        (True, True),
        (False, True),
    ]


@pytest.mark.parametrize("changes", [{}, {"micro_batch_size": 2, "label_smoothing": 0.1, "class_weights": "balanced"}])
@pytest.mark.parametrize("name", ["trivial", "crop+cutmix"])
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    whole = begun(name, **changes)
    results = list(train(whole))
    checkpoints, broken = Checkpoints(tmp_path), begun(name, **changes)
    list(train(broken, checkpoints=checkpoints, after_step=lambda done, batches: done == 3))
    again = begun(name, **changes)
    again.restore(checkpoints)
    assert [r.val_loss for r in train(again)] == [r.val_loss for r in results]


@pytest.mark.parametrize("micro", [None, 3])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_shares_of_one_class_give_the_loss_of_plain_labels(weights: str, micro: int | None) -> None:
    """So `train_loss` stays a mean per image, by class weights where they are asked for."""
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 1, 2, 0, 1, 0])
    losses = []
    for target in (labels, F.one_hot(labels, 3).float()):
        ours = begun("shift-flip", class_weights=weights, micro_batch_size=micro, label_smoothing=0.1)
        ours.model[4].p = 0.0
        losses.append(ours.step(images, target, 0.1).item())
        if weights == "balanced":  # of unequal classes
            assert ours.step.class_weights is not None
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


TOML = """
dataset = "x"
[[transforms]]
name = "color_jitter"
brightness = 0.2
[[transforms]]
name = "random_affine"
degrees = 10
translate = [0.1, 0.1]
"""


def test_a_list_in_a_config_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(TOML)
    made = made_of(build_config(TrainConfig, path, {}))
    assert [name for name, _ in made.transforms] == ["color_jitter", "random_affine"]
    assert made.shift


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"brightness": 1}, 'transforms, item 1: needs a name, such as name = "color_jitter"'),
        ({"name": "colour_jitter"}, "transforms, item 1: no augmentation is called 'colour_jitter'; did you mean"),
        ({"name": "color_jitter", "light": 1}, "item 1: color_jitter has no 'light'; it has brightness, contrast"),
        ({"name": "color_jitter", "hue": 0.7}, "color_jitter: hue must be a number from 0 to 0.5, or a list of such"),
        ({"name": "color_jitter", "hue": "x"}, "hue must be a number from 0 to 0.5, or a list of such, got 'x'"),
        ({"name": "color_jitter", "hue": True}, "got True"),
        ({"name": "pad", "padding": 1, "padding_mode": "mirror"}, "padding_mode must be one of constant, edge"),
        ({"name": "resize"}, "transforms, item 1: resize needs size"),
        ({"name": "random_affine", "degrees": 1, "translate": [0.1]}, "transforms, item 1: random_affine: "),
    ],
)
def test_mistakes_in_a_list_are_told_before_anything_is_read(item: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_policy((), config(transforms=(item,)).transforms, PLUGINS)
    assert said in str(caught.value)


def test_other_mistakes() -> None:
    with pytest.raises(UnknownNameError, match=r"(?s)unknown augmentation.*did you mean 'mixup'"):
        require_policy(("crop+mixupp",), (), PLUGINS)
    with pytest.raises(ConfigError, match="augmentation: resize needs size: list it in a config file"):
        require_policy(("resize",), (), PLUGINS)
    with pytest.raises(ConfigError, match="features are those of the images as they are"):
        automl_pt.config.make(TrainConfig, {"dataset": "x", "freeze": "backbone", "augmentation": "crop"})


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Augmentation("mine", lambda side: lambda image: image.float()), "returns an image as it was given one"),
        (Augmentation("mine", lambda side: lambda image: image.zero_()), "the image that is given stays as it is"),
        (Augmentation("mine", lambda side: 1 / 0), "an augmentation can be made"),
        (Augmentation("mine", build_mix=lambda n: lambda images, labels: (images, labels)), "share of each class"),
        (Augmentation("a+b"), "neither a plus nor a space"),
    ],
)
def test_what_breaks_the_contract_is_told(broken: Augmentation, said: str) -> None:
    with pytest.raises((PluginError, AutomlError), match=said):
        check_augmentation(broken)


def test_a_run_keeps_its_augmentation(tmp_path: Path) -> None:
    folder, plugin = write_folder(tmp_path / "images", {"train": 6, "val": 3}), write_plugin(tmp_path)
    how: dict[str, Any] = {"output": tmp_path / "run", "plugins": str(plugin), "backbone": "tiny", "batch_size": 4}
    listed = ({"name": "color_jitter", "brightness": 0.2},)
    how |= {"epochs": 2, "augment": "always", "transforms": listed}
    assert len(list(automl_pt.train(str(folder), augmentation="crop+mixup", **how))) == 2
    assert list(automl_pt.train(str(folder), augmentation="crop+mixup", **how)) == []
    with pytest.raises(CheckpointError, match=r"augmentation was 'crop\+mixup' and is 'crop'"):
        list(automl_pt.train(str(folder), augmentation="crop", **how))


def test_the_names_are_known_without_torch() -> None:
    check = "import sys; from automl_pt.plugins.augmentations import *; "
    check += "from automl_pt.plugins.manager import load_plugins; "
    check += "load_plugins().of_kind(Augmentation); assert not {'torch', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
