"""Checks the contract of a backbone on tiny batches on the CPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import head_modules, head_parameters
from automl_pt.backbones.random_state import kept_random_state
from automl_pt.core.errors import AutomlError, PluginError
from automl_pt.features.network import frozen_body
from automl_pt.testing.contract import BATCH, FEW, MANY, SMALL, BackboneCase, build, expect, make_case, no_network
from automl_pt.training.rehearsal import rehearse

#: tolerance relative to the largest logit, because other memory layouts and batch sizes may round differently
TOLERANCE = 1e-3

_BUILD = "the function given as Backbone(build=...)"
_FORWARD = "the model's forward()"


def check_backbone(backbone: Backbone | str, *, sizes: Sequence[int] | None = None) -> None:
    """Raise PluginError for the first rule of the contract that `backbone`, or the one of that name, violates.

    Everything is checked at the first of `sizes`, and the logits at the others too; default: a small one, the smallest
    and the native one of those it declares. Needs no network access, no GPU and no data.
    """
    if isinstance(backbone, str):
        from automl_pt.plugins.manager import load_plugins

        backbone = load_plugins().backbone(backbone)
    check_fields(backbone)
    first, *others = sizes or claimed_sizes(backbone)
    with kept_random_state(), no_network():
        case = make_case(backbone, first)
        for check in CHECKS:
            _run(check, case)
        for size in others:
            _run(check_logits, make_case(backbone, size))


def claimed_sizes(backbone: Backbone) -> list[int]:
    """Return a small image size to check everything at, then the smallest and the native one if they differ."""
    least, native = backbone.min_image_size, backbone.image_size
    sizes = [native] if least is None else [min(max(least, SMALL), native), least, native]
    return list(dict.fromkeys(sizes))


def check_fields(backbone: Backbone) -> None:
    """Check the backbone's own fields."""
    look = f"the arguments of Backbone({backbone.name!r}, ...)"
    least = 1 if backbone.min_image_size is None else backbone.min_image_size
    sizes = f"min_image_size={backbone.min_image_size}, image_size={backbone.image_size}"
    expect(0 < least <= backbone.image_size, "0 < min_image_size <= image_size", came=sizes, look=look)
    for name, values in (("mean", backbone.mean), ("std", backbone.std)):
        right = len(values) == 3 and all(math.isfinite(value) for value in values)
        expect(right, f"{name} is three numbers, of pixels in [0, 1]", came=repr(values), look=look)
    expect(min(backbone.std) > 0, "std is above 0", came=repr(backbone.std), look=look)
    digest = backbone.weights_sha256
    right = digest is None or (len(digest) == 64 and set(digest) <= set("0123456789abcdef"))
    expect(right, "weights_sha256 is 64 hexadecimal digits, in lower case", came=repr(digest), look=look)
    licensed = not backbone.has_pretrained or bool(backbone.weights_license)
    expect(licensed, "pretrained weights have a licence", came="weights_license=None", look=look)


def check_rehearsal(case: BackboneCase) -> None:
    """Check what a run checks before its first epoch: logits in both modes, for any number of images, and gradients."""
    place = torch.device("cpu")
    options: dict[str, Any] = {"device": place, "precision": "fp32", "channels_last": True}
    rehearse(case.model, case.backbone.name, MANY, case.size, **options)


def check_new(case: BackboneCase) -> None:
    """Check that each build returns a new network, by comparing parameters."""
    pointers = {id(parameter) for parameter in case.model.parameters()}
    again = build(case.backbone, case.size)
    shared = [name for name, parameter in again.named_parameters() if id(parameter) in pointers]
    expect(not shared, "each build creates a new network", came=f"shared: {shared[:5]}", look=_BUILD)


def check_logits(case: BackboneCase) -> None:
    """Check logits: float32 [images, classes], finite, different for different images."""
    for classes, model in ((MANY, case.model), (FEW, case.few)):
        logits = case.logits(model)
        came = f"{logits.dtype} {list(logits.shape)} at {case.size} px"
        right = logits.shape == (BATCH, classes) and logits.dtype == torch.float32
        expect(right, f"logits are float32 [{BATCH}, {classes}] for {BATCH} images", came=came, look=_FORWARD)
        finite = bool(logits.isfinite().all())
        expect(finite, "logits are finite", came=f"{logits} at {case.size} px", look=f"{_FORWARD} and initialisation")


def check_head(case: BackboneCase) -> None:
    """Check that the head, and only the head, depends on the number of classes."""
    many, few = case.model.state_dict(), case.few.state_dict()
    head = head_parameters(case.model, case.backbone)
    other = {name for name in many if name not in few or many[name].shape != few[name].shape}
    modules = ", ".join(head_modules(case.model, case.backbone))
    came = f"the head is {modules}; tensors that differ between {FEW} and {MANY} classes: {sorted(other)}"
    look = "Backbone(head=...), and that build() uses num_classes"
    expect(
        bool(other) and other <= head,
        "tensors that depend on the number of classes are the head's",
        came=came,
        look=look,
    )


def check_features(case: BackboneCase) -> None:
    """Check that features can be had where the head is one linear layer; other heads have no probe, and pass."""
    heads = head_modules(case.model, case.backbone)
    if len(heads) != 1 or not isinstance(case.model.get_submodule(heads[0]), nn.Linear):
        return
    try:
        frozen_body(case.model, case.backbone, case.size)
        came = ""
    except PluginError as error:
        came = error.given
    look = f"Backbone(head=...), which names the layer that gives the logits, and what {_FORWARD} does after {heads[0]}"
    expect(not came, "a linear head computes the logits from one vector an image", came=came, look=look)


def check_seed(case: BackboneCase) -> None:
    """Check that the same seed gives the same weights."""
    same = build(case.backbone, case.size).state_dict()
    differ = [name for name, tensor in case.model.state_dict().items() if not torch.equal(tensor, same[name])]
    look = f"random numbers in {_BUILD} or adapt: draw them from torch only"
    expect(not differ, "the same seed gives the same weights", came=f"these differ: {differ[:5]}", look=look)


def check_gradients(case: BackboneCase) -> None:
    """Check that a training step reaches the first and the last parameter."""
    model = _without_zeros(case.model)
    model.train()
    labels = torch.arange(BATCH) % MANY
    torch.autograd.backward(nn.functional.cross_entropy(model(case.images), labels))
    named = list(model.named_parameters())
    for name, parameter in (named[0], named[-1]):
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        came = f"no gradient at {name}"
        look = f"detach() or no_grad() in {_FORWARD}, requires_grad=False, or an unused parameter"
        expect(reached, "gradients reach the first and the last parameter", came=came, look=look)


def check_eval(case: BackboneCase) -> None:
    """Check that eval mode is deterministic and changes no tensor."""
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    same = torch.equal(case.logits(), case.logits())
    expect(same, "eval mode gives the same logits twice", came="they differ", look=f"random numbers in {_FORWARD}")
    changed = [name for name, tensor in case.model.state_dict().items() if not torch.equal(tensor, before[name])]
    look = f"buffers set in {_FORWARD}"
    expect(not changed, "eval mode changes no tensor", came=f"changed: {changed[:5]}", look=look)


def check_train(case: BackboneCase) -> None:
    """Check that train mode differs from eval mode: by batch statistics, or else by dropout."""
    model = _without_zeros(case.model)
    model.train()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    dropouts = [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    first, second = case.logits(model), case.logits(model)
    if norms:
        moved = any(m.num_batches_tracked is None or m.num_batches_tracked > 0 for m in norms)
        look = "a train() of the model that leaves its parts in eval mode"
        expect(moved, "train mode updates batch normalisation", came="no statistics changed", look=look)
    elif dropouts:
        look = "dropout called with training=False, or never used"
        expect(not torch.equal(first, second), "train mode applies dropout", came="equal logits twice", look=look)


def check_saving(case: BackboneCase) -> None:
    """Check that loading the saved tensors into a model of another seed gives the same model."""
    tensors = {name: tensor.contiguous().clone() for name, tensor in case.model.state_dict().items()}
    again = build(case.backbone, case.size, seed=2)
    look = "state that is not a parameter or a registered buffer, get_extra_state(), or a fixed seed in the builder"
    other = any(
        not torch.equal(tensor, tensors[name]) for name, tensor in again.state_dict().items() if name in tensors
    )
    expect(other, "another seed gives other weights", came="all are equal", look=look)
    result = again.load_state_dict(safetensors.torch.load(safetensors.torch.save(tensors)), strict=False)
    keys = [*result.missing_keys, *result.unexpected_keys]
    expect(not keys, "state_dict names the same tensors in every build", came=f"differ: {keys[:5]}", look=look)
    same = torch.equal(case.logits(), case.logits(again))
    expect(same, "a saved and loaded model gives the same logits", came="they differ", look=look)


def check_copy(case: BackboneCase) -> None:
    """Check that a deep copy is the same model and shares no parameters."""
    twin = copy.deepcopy(case.model)
    same = torch.equal(case.logits(), case.logits(twin))
    expect(
        same, "a deep copy gives the same logits", came="they differ", look="__deepcopy__, or state outside the model"
    )
    pointers = {parameter.data_ptr() for parameter in case.model.parameters()}
    shared = [name for name, parameter in twin.named_parameters() if parameter.data_ptr() in pointers]
    expect(not shared, "a deep copy shares no parameter", came=f"shared: {shared[:5]}", look="__deepcopy__")


def check_formats(case: BackboneCase) -> None:
    """Check channels_last, and bf16 as used by the trainer, with autocast."""
    expected = case.logits()
    layout = torch.channels_last
    model = copy.deepcopy(case.model).to(memory_format=layout)
    logits = case.logits(model, case.images.contiguous(memory_format=layout))
    look = f"view() in {_FORWARD}: reshape() and flatten() accept any layout"
    expect(
        _near(logits, expected), "channels_last gives the same logits", came=_difference(logits, expected), look=look
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = case.logits()
    right = logits.shape == expected.shape and bool(logits.isfinite().all())
    look = f"tensors created with a fixed dtype in {_FORWARD}"
    expect(right, "autocast to bf16 gives finite logits", came=f"{logits.dtype} {logits}", look=look)


def check_single(case: BackboneCase) -> None:
    """Check that in eval mode an image's logits do not depend on its batch, nor on a batch size of one."""
    expected, logits = case.logits(), torch.cat([case.logits(images=image[None]) for image in case.images])
    look = f"squeeze() without a dimension, or statistics over the batch, in {_FORWARD}"
    came = _difference(logits, expected)
    expect(_near(logits, expected), "a single image gets the same logits as in a batch", came=came, look=look)


def check_pretrained(case: BackboneCase) -> None:
    """Check that pretrained weights are loaded or refused, never ignored: two seeds must give the same backbone."""
    if not case.backbone.has_pretrained:
        return
    try:
        first, second = (build(case.backbone, case.size, seed, pretrained=True) for seed in (1, 2))
    except AutomlError:
        return  # the weights are not available here, and an error said so
    head = head_parameters(first, case.backbone)
    ignored = [n for n, p in first.named_parameters() if n not in head and not torch.equal(p, second.get_parameter(n))]
    look = f"the use of `pretrained` in {_BUILD}"
    expect(not ignored, "pretrained weights are loaded or refused", came=f"random: {ignored[:5]}", look=look)


def _run(check: Callable[[BackboneCase], None], case: BackboneCase) -> None:
    try:
        check(case)
    except AutomlError:
        raise
    except Exception as error:
        what = (check.__doc__ or "").partition("\n")[0].removeprefix("Check ")
        came = f"{type(error).__name__} at {case.size} px: {error}"
        expect(False, what, came=came, look=f"{_FORWARD}: pytest shows where it failed")


def _without_zeros(model: nn.Module) -> nn.Module:
    """Return a copy in which all-zero parameters have small random values.

    A head or a branch that starts at zero is a common initialisation, and hides everything before it.
    """
    twin, random = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02, generator=random)
    return twin


def _near(logits: Tensor, expected: Tensor) -> bool:
    return logits.shape == expected.shape and bool((logits - expected).abs().max() <= TOLERANCE * _scale(expected))


def _scale(logits: Tensor) -> Tensor:
    return logits.abs().max().clamp(min=1e-6)


def _difference(logits: Tensor, expected: Tensor) -> str:
    if logits.shape != expected.shape:
        return f"{list(logits.shape)} instead of {list(expected.shape)}"
    return f"they differ by {float((logits - expected).abs().max()):g}, of at most {float(_scale(expected)):g}"


# in order of dependence: a copy's logits cannot be checked if the model's own differ
CHECKS: tuple[Callable[[BackboneCase], None], ...] = (
    check_logits,
    check_rehearsal,
    check_new,
    check_eval,
    check_copy,
    check_head,
    check_seed,
    check_gradients,
    check_train,
    check_saving,
    check_formats,
    check_single,
    check_features,
    check_pretrained,
)
