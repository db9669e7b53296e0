from __future__ import annotations

import torch
from test_trainer import network
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from automl_pt.training.moving_average import MovingAverage


def test_it_is_the_average_that_pytorch_computes() -> None:
    model = network()
    ours = MovingAverage(model, 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(5):
        model(torch.randn(4, 3, 8, 8))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ours.update(model)
        theirs.update_parameters(model)
    expected = theirs.module.state_dict()
    for name, value in ours.module.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, expected[name], atol=1e-6), name
    assert not any(parameter.requires_grad for parameter in ours.module.parameters())


def test_it_goes_on_from_its_state() -> None:
    model = network()
    first, second = MovingAverage(model, 0.5), MovingAverage(network(), 0.5)
    first.update(model)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    first.update(model)
    second.update(model)
    assert first.updates == second.updates == 2
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, second.module.state_dict()[name]), name
