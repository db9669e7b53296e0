"""What a coordinator costs for each report of a cluster's places, and how many places keep it busy.

    python benchmarks/cluster_scale.py                       # 10, 100 and 1,000 places
    python benchmarks/cluster_scale.py --places 100 --trials 200 --profile

The coordinator, its SQLite storage and the mirrored executor are real; the places are not: they answer at once, with a
made-up epoch and its files. So the processor time of this process, divided by the reports, is what one report costs.
With epochs of s seconds, s / cost places keep one coordinator busy. Processor time is measured, because a wait for the
disk is no work and other programs may be running; the wall time is given beside it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import toy_trial  # noqa: E402  # a search whose trials cost nothing

from automl_pt.api import search  # noqa: E402
from automl_pt.config import SearchConfig  # noqa: E402
from automl_pt.core.files import to_json  # noqa: E402
from automl_pt.study import setup  # noqa: E402
from automl_pt.study.events import EpochDone, TrialRanked  # noqa: E402
from automl_pt.study.executor.base import Answer, Call, ExecutorJob, TrialSpec  # noqa: E402
from automl_pt.study.executor.messages import (  # noqa: E402
    IteratorEnded,
    Message,
    Place,
    ProxyRun,
    message_as_plain,
    messages_of,
)
from automl_pt.study.executor.mirrored import MirroredEngine  # noqa: E402
from automl_pt.study.executor.versions import versions_here  # noqa: E402
from automl_pt.training.result import EpochResult  # noqa: E402

#: bytes of a model that an epoch leaves: small, because copying bytes costs what it costs on any network
MODEL = bytes(20_000)


@dataclass(eq=False)
class FakePlace:
    """The far end of a place: the trial that it would run."""

    name: str
    spec: TrialSpec | None = None
    next_rung: float = 0.0
    done: float = 0.0
    lines: str = ""

    def step(self) -> dict[str, Any]:
        """Answer with the next proxy run or epoch, and the files that a run leaves."""
        assert self.spec is not None
        config, number = self.spec.config, self.spec.number
        ranked = [level for level in self.spec.ranked_at if self.done < level < 1]
        at = ranked[0] if ranked else float(int(self.done) + 1)
        loss = toy_trial.loss_at(config.lr, config.batch_size, config.seed, int(at), config.epochs)
        messages: list[Message] = []
        files: dict[str, bytes] = {}
        self.done = at
        if ranked:
            messages = messages_of(number, ProxyRun(at, loss, 0.1), self.next_rung)
        else:
            reason = "completed" if at >= config.epochs else None
            ended: Any = [int(at), loss, loss, 0.5, None, config.lr, 1.0, 0.0, 0, 0.1, True]
            result = EpochResult(*ended, reason=reason)  # type: ignore[arg-type]
            self.lines += to_json(result.to_dict()) + "\n"
            files = {"weights.safetensors": MODEL, "model.json": b"{}", "checkpoints/last.json": b"{}"}
            files["history.jsonl"] = self.lines.encode()
            messages = messages_of(number, result, self.next_rung)
            messages += [IteratorEnded(number)] if reason else []
        return {"told": [message_as_plain(message) for message in messages], "files": files}


class FakeCluster(MirroredEngine):
    """So many places; each answers when it is asked."""

    def __init__(self, job: ExecutorJob, places: int, *, together: bool) -> None:
        super().__init__(job)
        self.count, self.opened, self.asked, self.together = places, 0, 0, together

    @property
    def slots(self) -> int:
        return self.count

    def open_place(self, avoid: frozenset[str]) -> FakePlace:
        self.opened += 1
        return FakePlace(f"machine-{self.opened}")

    def located(self, handle: FakePlace) -> Place:
        return Place("cuda:0", "made up", 2**34, handle.name)

    def ask(self, handle: FakePlace, method: str, *values: Any) -> Any:
        self.asked += 1
        if method == "start":
            handle.spec, handle.lines = TrialSpec.from_plain(values[0]), ""
            handle.next_rung = handle.spec.next_rung
            history = values[2].get("history.jsonl", b"")
            handle.lines, handle.done = history.decode(), float(history.count(b"\n"))
        elif method == "resume":
            handle.next_rung = values[0]
        return (self.asked, method)

    def answered(self, pending: Sequence[Any], timeout: float) -> Sequence[Any]:
        return sorted(pending)[: None if self.together else 1]

    def answer(self, handle: FakePlace, pending: Any) -> Any:
        return versions_here(self._packages) if pending[1] == "versions" else handle.step()

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Answer:
        """Do nothing: what follows the trials is not measured."""
        yield from ()
        return None

    def close_place(self, handle: FakePlace) -> None:
        handle.spec = None

    def shortage(self) -> str:
        return "nothing is missing"


def measure(places: int, trials: int, epochs: int, folder: Path | None, *, together: bool) -> dict[str, Any]:
    """Search with so many places; return what a report costs, at the start and at the end of the study."""
    config = SearchConfig(dataset="plain", epochs=epochs, trials=trials, engine="ray", report=False)
    made: list[FakeCluster] = []

    def engine(job: ExecutorJob, *others: Any) -> FakeCluster:
        made.append(FakeCluster(job, places, together=together))
        return made[0]

    setup.make_engine = engine  # type: ignore[assignment]
    stamps: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(dir=folder) as study:
        for event in search.steps(config, Path(study) / "study", objective=toy_trial.TOY):
            if isinstance(event, EpochDone | TrialRanked):
                stamps.append((time.process_time(), time.monotonic()))
    quarter = len(stamps) // 4
    (cost, wall), (last, _) = (
        [(after - before) / (end - begin) for before, after in zip(stamps[begin], stamps[end], strict=True)]
        for begin, end in ((0, len(stamps) - 1), (len(stamps) - 1 - quarter, len(stamps) - 1))
    )
    return {
        "places": places,
        "answers": "all that came" if together else "one at a time",
        "trials": trials,
        "reports": len(stamps),
        "ms_for_each_report": round(1000 * cost, 2),
        "ms_in_the_last_quarter": round(1000 * last, 2),
        "wall_ms_for_each_report": round(1000 * wall, 2),
        "bytes_mirrored": made[0].bytes_mirrored,
        "places_that_keep_it_busy": {f"epochs of {seconds} s": round(seconds / last) for seconds in (0.1, 1, 10, 60)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, action="append")
    parser.add_argument("--trials", type=int, help="default: twice as many as places")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where the study lies: /dev/shm leaves out the disk's waits")
    parser.add_argument("--single", action="store_true", help="take one answer at a time, as an idle coordinator does")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    profile = cProfile.Profile()
    found = []
    for places in given.places or (10, 100, 1000):
        if given.profile:
            profile.enable()
        found.append(measure(places, given.trials or 2 * places, given.epochs, given.folder, together=not given.single))
        profile.disable()
        print(found[-1], flush=True)
    if given.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    else:
        record.write("cluster_scale", runs=found)


if __name__ == "__main__":
    main()
