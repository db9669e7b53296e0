"""What an augmentation must be able to do, checked on a few drawn images on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from automl_pt.backbones.random_state import kept_random_state
from automl_pt.core.errors import AutomlError
from automl_pt.data.policy import Policy
from automl_pt.plugins.augmentations import Augmentation
from automl_pt.testing.contract import expect, no_network

SIDE, CLASSES, BATCH = 24, 3, 6


def check_augmentation(augmentation: Augmentation | str, **arguments: Any) -> None:
    """Raise PluginError for the first point of the contract that `augmentation`, or the one of that name, breaks.

    `arguments` are those of its `build`. Needs no network, no GPU and no data.
    """
    if isinstance(augmentation, str):
        from automl_pt.plugins.manager import load_plugins

        augmentation = load_plugins().named(Augmentation, augmentation)
    name = augmentation.name
    plain = name and not set(name) & set("+ \t\n")
    expect(bool(plain), "a name has neither a plus nor a space", came=repr(name), look="Augmentation(name=...)")
    with kept_random_state(), no_network():
        try:
            transforms = () if augmentation.build is None else ((name, augmentation.build(SIDE, **arguments)),)
            mixes = () if augmentation.build_mix is None else ((name, augmentation.build_mix(CLASSES)),)
        except AutomlError:
            raise
        except Exception as error:
            came = f"{type(error).__name__}: {error}"
            expect(False, "an augmentation can be made", came=came, look="Augmentation(build=..., build_mix=...)")
            raise
        policy = Policy(transforms=transforms, mixes=mixes, classes=CLASSES)
        if transforms:
            _check_images(policy, name)
        if mixes:
            _check_mix(policy, name)


def _check_images(policy: Policy, name: str) -> None:
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=drawn)
    before, indices = images.clone(), range(BATCH)
    first = policy.changed(images, indices, 1, 1)
    look = f"the function that build(side) of {name} returns"
    expect(torch.equal(images, before), "the image that is given stays as it is", came="it was changed", look=look)
    second = policy.changed(images, indices, 1, 1)
    rule = "the same seed gives the same image: random numbers come from torch alone"
    expect(torch.equal(first, second), rule, came="another image", look=look)
    alone = policy.changed(images[2:3], [2], 1, 1)
    rule = "an image does not depend on those before it"
    expect(torch.equal(first[2:3], alone), rule, came="another image", look=look)


def _check_mix(policy: Policy, name: str) -> None:
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    labels, look = torch.arange(BATCH) % CLASSES, f"the function that build_mix(classes) of {name} returns"
    mixed, shares = policy.mixed(images.clone(), labels, 0, 1, 1)
    right = mixed.shape == images.shape and bool(mixed.isfinite().all())
    expect(right, "a mixed batch has the shape that it had", came=f"{list(mixed.shape)}", look=look)
    whole = bool((shares >= 0).all()) and torch.allclose(shares.sum(1), torch.ones(BATCH), atol=1e-5)
    expect(whole, "the shares of an image's classes add up to 1", came=str(shares), look=look)
    again = policy.mixed(images.clone(), labels, 0, 1, 1)
    same = torch.equal(mixed, again[0]) and torch.equal(shares, again[1])
    expect(same, "the same seed gives the same batch: random numbers come from torch alone", came="another", look=look)
