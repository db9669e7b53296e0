"""Averages the weights of several trials that started from the same pretrained weights.

The greedy recipe of Wortsman et al., "Model soups" (ICML 2022), by the validation loss: starting with the best trial,
each next one is averaged in and kept if the loss falls. This requires a common start, because the mean of networks
from different random weights is not a trained network. The heads start at zero.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from automl_pt.config import TrainConfig, as_made, make
from automl_pt.data.loader import Loader
from automl_pt.data.policy import make_policy
from automl_pt.model.directory import save_model
from automl_pt.model.labelled import Scored
from automl_pt.model.load import BATCH_SIZE, Model
from automl_pt.study.executor.base import Caller
from automl_pt.study.extras.evaluator import ModelEvaluator, figures, gain
from automl_pt.study.extras.extras import Ended
from automl_pt.training.moving_average import copied

State = dict[str, Tensor]


def average(states: Sequence[State]) -> State:
    """Return the mean of each tensor, computed in float64; integer tensors, which only count, are the first's."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        if first.is_floating_point()
        else first.clone()
        for name, first in states[0].items()
    }


def make_average(ended: Ended) -> Generator[str, None, dict[str, Any] | None]:
    """Try the average, and write `model-average` if its validation loss is below the best trial's."""
    evaluator, target = (
        ModelEvaluator.of(ended.config, ended.directory, ended.plugins, Caller(alive=ended.should_stop)),
        ended.directory / "model-average",
    )
    trials = ended.trials[: ended.config.average]
    best = evaluator.load(ended.output(trials[0].number))
    soup, start = _Soup(evaluator, best), evaluator.score(best)
    taken, tried = [trials[0].number], []
    loss, chosen = figures(start)[0], start
    for trial in trials[1:]:
        if ended.should_stop():
            return None
        model = evaluator.load(ended.output(trial.number))
        if _kind(model) != _kind(best):
            continue
        tried.append(trial.number)
        scored = soup.with_(model)
        if (found := figures(scored)[0]) < loss:
            soup.keep(model)
            taken.append(trial.number)
            loss, chosen = found, scored
        yield f"average: with trial {trial.number} the validation loss is {found:.4f}, the lowest {loss:.4f}"
    result = {"tried": tried, "members": taken, "kept": len(taken) > 1, **gain(chosen, start)}
    if len(taken) == 1:
        shutil.rmtree(target, ignore_errors=True)
        return {**result, "batch_norm": soup.batch_norm, "model": None, "test": None}
    metrics = {"val_loss": result["val_loss"], "val_accuracy": result["val_accuracy"], "average_of_trials": taken}
    save_model(target, soup.state, replace(best.info, metrics=metrics, history=[]))
    test = yield from evaluator.tested(evaluator.load(target), "average")
    return {**result, "batch_norm": soup.batch_norm, "model": str(target), "test": test}


def _kind(model: Model) -> tuple[Any, ...]:
    """Return what two networks must share to be averaged tensor by tensor."""
    config = model.info.config
    return model.info.backbone, config.get("backbone_options"), model.info.preprocessing


class _Soup:
    """The networks averaged so far, and one network to measure an average with."""

    def __init__(self, evaluator: ModelEvaluator, best: Model) -> None:
        self.evaluator, self.best = evaluator, best
        self.states: list[State] = [_state(best.network)]
        self.network = copied(best.network)
        self.batch_norm = self._rule()
        #: the current average, exactly as evaluated
        self.state = self.states[0]

    def _rule(self) -> str:
        """Describe how the running statistics of batch normalisation are set, because they cannot be averaged."""
        if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.network.modules()):
            return "none in the network"
        if self.best.info.config.get("freeze") == "backbone":
            return "frozen, the same in all"
        if make(TrainConfig, as_made(self.best.info.config)).keeps_batch_norm:
            return "kept, the same in all"
        return "recomputed in one pass over the training images"

    def with_(self, model: Model) -> Scored:
        """Evaluate, on the validation images, the average with one more network."""
        self._load(average([*self.states, _state(model.network)]))
        return self.evaluator.score(replace(self.best, network=self.network))

    def keep(self, model: Model) -> None:
        """Add the network that was evaluated last."""
        self.states.append(_state(model.network))
        # not recomputed, because a pass over training images draws random numbers for dropout
        self.state = _state(self.network)

    def _load(self, state: State) -> None:
        self.network.load_state_dict(state)
        if self.batch_norm.startswith("recomputed"):
            update_bn(self._batches(), self.network, self.best.device)
        self.network.eval()

    def _batches(self) -> Any:
        """Return one epoch of training batches, augmented as in the last epochs of training, the same each time."""
        rule, config = self.best.info.preprocessing, self.evaluator.config
        classes = len(self.best.info.classes)
        named = (config.augmentation, config.transforms, self.evaluator.plugins)
        policy = make_policy(*named, rule.image_size, classes, rule.pixels)
        loader = Loader(
            self.evaluator.data.pixels("train", rule.image_size),
            batch_size=BATCH_SIZE,
            mean=rule.mean,
            std=rule.std,
            seed=config.seed,
            device=self.best.device,
            hints=self.evaluator.data.hints,
            augmented_epochs=1 if config.augment == "always" else 0,
            shuffle=True,
            policy=policy,
        )
        for batch in loader.epoch(1):
            self.evaluator.caller.alive()
            yield batch


def _state(network: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
