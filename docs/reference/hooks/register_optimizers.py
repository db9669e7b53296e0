from automl_pt import Optimizer, hookimpl


def build(groups, momentum):
    """Import the library here, so that a run with another optimiser does not pay for it."""
    from torch.optim import RMSprop

    return RMSprop(groups, momentum=momentum)


@hookimpl
def register_optimizers():
    published = {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0}
    return [Optimizer("acme-rmsprop", build, published, search_lr=(1e-5, 1e-2), fine_tuning_lr=(1e-6, 1e-3))]
