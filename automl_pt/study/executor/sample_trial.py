"""A trial without a network, by which the contract test tries an executor: what it yields follows from its inputs.

Each loss follows from the one before, the seed and the manifest, and the record is in the trial's folder. So an epoch
that is lost, repeated or computed from another trial's files changes all losses after it. The dataset's name may say
what goes wrong: `sample:fail`, `sample:fatal`, `sample:slow`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from automl_pt.core.errors import DeviceError
from automl_pt.core.files import atomic_write, read_json, to_json, write_json
from automl_pt.study.executor.base import Caller, TrialSpec
from automl_pt.training.early_stopping import Reason
from automl_pt.training.result import EpochResult

#: the record in a trial's folder, and the checkpoint without which it cannot resume
RECORD, CHECKPOINT = "history.jsonl", "checkpoints/last.json"
#: seconds that an epoch of a slow trial takes
SLOW = 0.2


def make(spec: TrialSpec, should_stop: Callable[[], bool]) -> Iterator[EpochResult]:
    """Yield the epochs that the record holds, then the others."""
    done = recorded(spec.output)
    yield from done
    if done and done[-1].reason is not None:
        return
    kind = spec.config.dataset.partition(":")[2]
    salt = str(read_json(spec.manifest)["salt"])
    before = 0.0 if not done else float(read_json(spec.output / CHECKPOINT)["loss"])
    for epoch in range(len(done) + 1, spec.config.epochs + 1):
        if kind == "slow":
            time.sleep(SLOW)
        if should_stop():
            return
        if kind == "fail" and epoch == 2:
            raise ValueError("this trial was told to fail")
        if kind == "fatal" and epoch == 2:
            raise DeviceError("a device must stay", given="made up", remedy="this is a test")
        before = next_loss(before, salt, spec.config.seed)
        last: Reason | None = "completed" if epoch == spec.config.epochs else None
        done.append(EpochResult(epoch, before, before, 0.5, None, 0.1, 1.0, 0.0, 0, 0.01, True, reason=last))
        write_json(spec.output / CHECKPOINT, {"loss": before, "epoch": epoch})
        atomic_write(spec.output / RECORD, "".join(to_json(result.to_dict()) + "\n" for result in done))
        yield done[-1]


def next_loss(before: float, salt: str, seed: int) -> float:
    """Return the loss of an epoch, from that of the epoch before."""
    return random.Random(f"{before!r} {salt} {seed}").random()


def losses(salt: str, seed: int, epochs: int) -> list[float]:
    """Return the losses of a whole trial."""
    found = [0.0]
    for _ in range(epochs):
        found.append(next_loss(found[-1], salt, seed))
    return found[1:]


def recorded(output: Path) -> list[EpochResult]:
    """Return the epochs in the record of a trial's folder."""
    from automl_pt.core.json_reader import parse_json

    path = output / RECORD
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [EpochResult.from_dict(dict(parse_json(line, not_finite=True))) for line in lines]


def double(number: int, device: str, threads: int, caller: Caller) -> Generator[str, None, int]:
    """Double a number where trials run, and tell so."""
    yield f"doubling {number}"
    if number < 0:
        raise DeviceError("a number must be positive", given=str(number), remedy="this is a test")
    return 2 * number
