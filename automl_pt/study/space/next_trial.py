"""What a trial is given: the point that a new one tries, and the settings of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core.seeds import derive_seed
from automl_pt.study.executor import failures
from automl_pt.study.linear_probes import starts_at_probe
from automl_pt.study.pruning.base import Rule
from automl_pt.study.records import ProbeRecord
from automl_pt.study.space.sampler import suggest
from automl_pt.study.space.space import Space
from automl_pt.study.store.attributes import outcome
from automl_pt.study.store.trials import TrialStore

OUT_OF_MEMORY = f"failed: {failures.OUT_OF_MEMORY}"


def add_trial(trial_store: TrialStore, space: Space, rule: Rule, seed: int) -> int:
    """Add a trial at the point that the sampler asks for, and return its number; no batch that was too large again."""
    trials, smaller = trial_store.trials(), space
    for trial in trials:
        ended = outcome(trial)
        if ended is not None and ended.reason == OUT_OF_MEMORY:
            smaller = smaller.without(trial.params["batch_size"])
    params = suggest(
        smaller,
        {trial.number: trial_store.params(trial) for trial in trials},
        rule.ranking(trial_store.progress_list()),
        seed=seed,
        number=len(trials),
    )
    return trial_store.add(params, space.distributions(params.get("backbone", space.backbones[0])))


def trial_config(
    config: SearchConfig, space: Space, number: int, params: Mapping[str, Any], probes: Sequence[ProbeRecord] = ()
) -> TrainConfig:
    """Return the settings of a trial's run, which starts from its backbone's probe where there is one."""
    backbone = params.get("backbone", space.backbones[0])
    return config.trial(
        backbone=backbone,
        lr=params["lr"],
        batch_size=params["batch_size"],
        seed=derive_seed(config.seed, "trial", number),
        backbone_options=space.options(params),
        head="probe" if starts_at_probe(config, backbone, probes) else "new",
    )
