"""What a search on a Ray cluster keeps where machines, places and the coordinator itself are killed.

    python benchmarks/cluster_kills.py                      # every row: about 15 minutes on a core
    python benchmarks/cluster_kills.py machine_falls joins  # these rows

Three machines of Ray on the loopback of this one (`tests/study/ray_on_loopback.py`) run trials of the digits, or toy
trials, and each row kills something. Its search is compared with the same one, uninterrupted, in a process of this
machine: parameters, losses of every epoch, ends, and the bytes of the published model.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import record

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "study")]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:3])
os.environ["AUTOML_PT_CACHE"] = tempfile.mkdtemp(prefix="cluster-kills-")
import ray_on_loopback  # noqa: E402
from toy_trial import TOY  # noqa: E402

from automl_pt.api import search  # noqa: E402
from automl_pt.config import SearchConfig  # noqa: E402
from automl_pt.study import setup  # noqa: E402
from automl_pt.study.events import EpochDone, Event, Finished, Notice, TrialPaused, TrialStarted  # noqa: E402
from automl_pt.study.executor.keeper import descendants  # noqa: E402
from automl_pt.study.executor.messages import TrialPlaced  # noqa: E402

TINY = {"backbones": ("tiny",), "plugins": (str(ROOT / "benchmarks" / "tiny_backbone.py"),), "pretrained": False}
DIGITS: dict[str, Any] = {"dataset": "digits", "epochs": 9, "seed": 3, "threads": 1, "report": False, **TINY}
#: one trial at a time, so that rungs compare the same trials; some wait at epoch 4 and are promoted later
PRUNED: dict[str, Any] = {**DIGITS, "trials": 16, "lr": (0.01, 1.0), "workers": 1}
#: as many at a time as there is room: what a trial does must not depend on the others
AT_ONCE: dict[str, Any] = {**DIGITS, "trials": 6, "pruner": "none", "sampler": "random"}
TOYS: dict[str, Any] = {"dataset": "plain", "epochs": 9, "trials": 10, "pruner": "none", "sampler": "random"}
MACHINES, LONGEST = 3, 300.0
#: whether each event is printed
SHOWN = "SHOW_EVENTS" in os.environ


@dataclass
class Machines:
    """The machines that are there, and what a search on them has said."""

    cluster: Any
    nodes: list[Any] = field(default_factory=list)

    def whole(self, count: int = MACHINES) -> None:
        """Add or end machines until there are `count`."""
        while len(self.nodes) < count:
            self.add()
        while len(self.nodes) > count:
            self.cluster.remove_node(self.nodes.pop())

    def add(self) -> Any:
        self.nodes.append(ray_on_loopback.add(self.cluster))
        return self.nodes[-1]

    def of(self, place: str) -> Any:
        return next(node for node in self.nodes if node.node_id.startswith(place.rpartition("/")[2]))

    def kill(self, node: Any, *, workers: bool = True) -> None:
        ray_on_loopback.kill(node, workers=workers)
        self.nodes.remove(node)

    def actors(self) -> list[int]:
        """Return the processes of all places."""
        raylets = [process.process.pid for node in self.nodes for process in node.all_processes["raylet"]]
        return [one for raylet in raylets for one in actors_below(raylet)]


def actors_below(raylet: int) -> list[int]:
    found = []
    for process in descendants(raylet):
        with suppress(OSError):
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::RayPlace"):
                found.append(process)
    return found


@dataclass
class Search:
    """A search in this process, whose executor may be looked at between two events."""

    settings: dict[str, Any]
    folder: Path
    events: list[Event] = field(default_factory=list)
    #: seconds at which trials were placed, with the names of the places
    placed: list[tuple[float, int, str]] = field(default_factory=list)
    engine: Any = None

    def run(self) -> Iterator[Event]:
        objective = TOY if self.settings["dataset"] == "plain" else None
        make = setup.make_engine
        setup.make_engine = lambda *given: self._watched(make(*given))
        try:
            for event in search.steps(SearchConfig(**self.settings), self.folder, objective=objective):
                self.events.append(event)
                if SHOWN:
                    print(round(time.monotonic(), 1), str(event)[:110], file=sys.stderr, flush=True)
                yield event
        finally:
            setup.make_engine = make

    def _watched(self, engine: Any) -> Any:
        wait = engine.wait

        def watched(timeout: float) -> Any:
            messages = wait(timeout)
            found = (message for message in messages if isinstance(message, TrialPlaced))
            self.placed += [(time.monotonic(), message.number, message.place.name) for message in found]
            return messages

        self.engine, engine.wait = engine, watched
        return engine

    def place(self, trial: int) -> str:
        """Return where a trial ran last."""
        return next(name for _, number, name in reversed(self.placed) if number == trial)

    def said(self, part: str) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Notice) and part in event.text]

    def compared(self, unbroken: dict[str, Any]) -> dict[str, Any]:
        """Compare with the uninterrupted search."""
        told = [(event.trial, event.result.epoch) for event in self.events if isinstance(event, EpochDone)]
        crashes = len(self.said("process ended"))
        more = {"lost_machines_reported": len(self.said("was lost")), "crashes_reported": crashes}
        return {"equal": outcome_of(self.folder) == unbroken, **repeats(told, unbroken), **more}


def repeats(told: list[tuple[int, int]], unbroken: dict[str, Any]) -> dict[str, int]:
    wanted = {(trial["number"], int(epoch)) for trial in unbroken["trials"] for epoch in trial["losses"]}
    return {"epochs": len(told), "epochs_lost": len(wanted - set(told)), "epochs_repeated": len(told) - len(set(told))}


def outcome_of(folder: Path) -> dict[str, Any]:
    """Return all of a study that must not depend on where it ran."""
    trials = json.loads((folder / "result.json").read_text())["trials"]
    kept = [{**trial, "seconds": None, "machine": None} for trial in trials]
    weights = folder / "model" / "weights.safetensors"
    return {"trials": kept, "model": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else None}


def unbroken(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the outcome of the uninterrupted search in one process of this machine; each is run once."""
    target = folder / f"unbroken-{hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:12]}"
    if not target.exists():
        slow, os.environ["TOY_SECONDS"] = os.environ.get("TOY_SECONDS", "0"), "0"
        for _ in Search({**settings, "workers": 1 if settings["dataset"] == "digits" else 0}, target).run():
            pass
        os.environ["TOY_SECONDS"] = slow
    return outcome_of(target)


def there(machines: Machines, settings: dict[str, Any], folder: Path) -> Search:
    return Search({**settings, "engine": "ray", "ray_address": machines.cluster.address}, folder)


def until(condition: Callable[[], bool], limit: float = LONGEST) -> float:
    """Wait; return the seconds that it took, or raise TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit:
            raise TimeoutError
        time.sleep(0.05)
    return round(time.monotonic() - began, 2)


# -- the rows ----------------------------------------------------------------------------------------------------------


def machine_falls(machines: Machines, folder: Path) -> dict[str, Any]:
    """SIGKILL of a raylet and its workers after an epoch: one trial at a time with rungs, and three at a time."""
    found = {}
    for name, settings in (("one at a time, with rungs", PRUNED), ("three at a time", AT_ONCE)):
        expected, ran = unbroken(settings, folder), there(machines, settings, folder / name)
        killed = False
        for event in ran.run():
            if isinstance(event, EpochDone) and event.result.epoch == 2 and not killed:
                machines.kill(machines.of(ran.place(event.trial)))
                killed = True
        found[name] = ran.compared(expected)
        machines.whole()
    return found


def raylet_falls(machines: Machines, folder: Path) -> dict[str, Any]:
    """SIGKILL of the raylet alone; its actor is stopped, and goes on once its trial runs elsewhere."""
    expected, ran = unbroken(PRUNED, folder), there(machines, PRUNED, folder / "raylet")
    actor, woken, lived = 0, 0.0, None
    for event in ran.run():
        if isinstance(event, EpochDone) and event.result.epoch == 2 and not actor:
            node = machines.of(ran.place(event.trial))
            raylet = node.all_processes["raylet"][0].process.pid
            (actor,) = actors_below(raylet)
            machines.kill(node, workers=False)
            until(lambda of=Path(f"/proc/{raylet}/stat"): of.read_text().rpartition(")")[2].split()[0] == "Z")
            os.kill(actor, signal.SIGSTOP)  # not before: the kernel ends stopped processes whose parent dies
        elif isinstance(event, EpochDone) and actor and not woken and ran.said("was lost"):
            woken = time.monotonic()
            os.kill(actor, signal.SIGCONT)
        if woken and lived is None and not Path(f"/proc/{actor}").exists():
            lived = round(time.monotonic() - woken, 1)
    machines.whole()
    return {**ran.compared(expected), "woken_after_its_trial_ran_elsewhere": bool(woken), "actor_lived_on_s": lived}


def paused_trial_moves(machines: Machines, folder: Path) -> dict[str, Any]:
    """The machine of a trial that was paused after an epoch is removed; the trial is promoted on another."""
    expected, ran = unbroken(PRUNED, folder), there(machines, PRUNED, folder / "paused")
    trial, before, after = None, "", ""
    for event in ran.run():
        if isinstance(event, TrialPaused) and event.epoch >= 1 and trial is None:
            trial, before = event.number, ran.place(event.number)
            node = machines.of(before)
            machines.nodes.remove(node)
            machines.cluster.remove_node(node)
        if isinstance(event, EpochDone) and event.trial == trial and event.result.epoch == 5:
            after = ran.place(event.trial)
    resumed = [event.epochs_done for event in ran.events if isinstance(event, TrialStarted) and event.number == trial]
    machines.whole()
    moved = bool(after) and after != before
    return {**ran.compared(expected), "promoted_on_another_machine": moved, "it_resumed_from_epoch": max(resumed)}


def joins(machines: Machines, folder: Path) -> dict[str, Any]:
    """A machine joins a search that has one; then all are killed; then one joins."""
    machines.whole(1)
    expected, ran = unbroken({**TOYS, "trials": 20}, folder), there(machines, {**TOYS, "trials": 20}, folder / "joins")
    at: dict[str, float] = {}
    name = ""
    for event in ran.run():
        if isinstance(event, EpochDone) and "joined" not in at:
            name = machines.add().node_id[:12]
            at["joined"] = time.monotonic()
        first = next((seconds for seconds, _, place in ran.placed if name and place.endswith(name)), None)
        if first is not None and "runs" not in at:
            at["runs"] = first
        if isinstance(event, EpochDone) and "runs" in at and "gone" not in at:
            for node in list(machines.nodes):
                machines.kill(node)
            at["gone"], at["waits"] = time.monotonic(), len(ran.said("waiting for a place"))
        if "gone" in at and "said" not in at and len(ran.said("waiting for a place")) > at["waits"]:
            at["said"] = time.monotonic()
            machines.add()
            at["joined again"] = time.monotonic()
    again = next(seconds for seconds, _, _ in ran.placed if seconds > at["joined again"])
    took = {
        "runs_on_a_new_machine_after_s": at["runs"] - at["joined"],
        "all_gone_said_after_s": at["said"] - at["gone"],
    }
    took["runs_again_after_s"] = again - at["joined again"]
    machines.whole()
    rounded = {key: round(value, 2) for key, value in took.items()}
    return {**ran.compared(expected), **rounded, "said": ran.said("waiting for a place")[-1]}


def worker_stops(machines: Machines, folder: Path) -> dict[str, Any]:
    """SIGSTOP of one place's process; it is woken after the others have ended five trials."""
    expected, ran = unbroken(TOYS, folder), there(machines, TOYS, folder / "stopped")
    actor, others = 0, set[int]()
    stopped = woken = None
    for event in ran.run():
        if isinstance(event, EpochDone) and event.result.epoch == 2 and not actor:
            (actor,) = actors_below(machines.of(ran.place(event.trial)).all_processes["raylet"][0].process.pid)
            os.kill(actor, signal.SIGSTOP)
            stopped = event.trial
        elif isinstance(event, EpochDone) and event.result.reason and event.trial != stopped and woken is None:
            others.add(event.trial)
            if len(others) == 5:
                os.kill(actor, signal.SIGCONT)
                woken = True
    return {**ran.compared(expected), "trials_ended_meanwhile": len(others)}


def coordinator_ends(machines: Machines, folder: Path) -> dict[str, Any]:
    """SIGKILL and Ctrl-C of the command; afterwards the same command goes on."""
    settings = {**AT_ONCE, "lr": (0.01, 1.0)}
    expected, found = unbroken(settings, folder), {}
    for name, number in (("SIGKILL", signal.SIGKILL), ("Ctrl-C", signal.SIGINT)):
        work = folder / name
        work.mkdir()
        command = [
            sys.executable,
            "-m",
            "automl_pt",
            "search",
            "digits",
            "--epochs",
            "9",
            "--trials",
            "6",
            "--seed",
            "3",
        ]
        command += ["--lr", "0.01:1", "--pruner", "none", "--sampler", "random", "--threads", "1", "--no-report"]
        command += ["--from-scratch", "--backbone", "tiny", "--plugin", TINY["plugins"][0], "--engine", "ray"]
        command += ["--ray-address", machines.cluster.address]
        log = work / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(command, cwd=work, stdout=stream, stderr=subprocess.STDOUT)
            until(lambda log=log: log.read_text().count(" epoch 2:") >= MACHINES)
            os.kill(process.pid, number)
            exited = until(lambda process=process: process.poll() is not None)
            actors_gone = until(lambda: not machines.actors())
            first = reported(log.read_text())
            again = subprocess.run(command, cwd=work, stdout=stream, stderr=subprocess.STDOUT, check=False)
        told = reported(log.read_text())
        study = work / "studies" / "digits"
        found[name] = {
            "exit_code": process.returncode,
            "exited_after_s": exited,
            "no_actor_after_s": round(exited + actors_gone, 2),
            "epochs_before": len(first),
            "again_exit_code": again.returncode,
            "equal": outcome_of(study) == expected,
            **repeats(told, expected),
        }
    return found


def reported(log: str) -> list[tuple[int, int]]:
    """Return trial and epoch of each line that reports an epoch."""
    lines = (line.split() for line in log.splitlines() if line.startswith("trial ") and " epoch " in line)
    return [(int(words[1]), int(words[3].rstrip(":"))) for words in lines if words[2] == "epoch"]


def random_kills(machines: Machines, folder: Path, kills: int = 30) -> dict[str, Any]:
    """Machines fall at random, with their workers or the raylet alone, in toy searches of ten trials."""
    expected, draw, rows, done = unbroken(TOYS, folder), random.Random(0), [], 0
    while done < kills:
        ran, fell = there(machines, TOYS, folder / f"random-{len(rows)}"), 0
        for event in ran.run():
            if isinstance(event, EpochDone) and draw.random() < 0.12 and done < kills and len(machines.nodes) > 1:
                machines.kill(draw.choice(machines.nodes), workers=draw.random() < 0.7)
                fell, done = fell + 1, done + 1
                machines.whole()
        rows.append({"kills": fell, **ran.compared(expected)})
        numbers = [event.result.trials for event in ran.events if isinstance(event, Finished)][0]
        rows[-1]["trials"] = len(numbers)
        print(rows[-1], flush=True)
        machines.whole()
    lost, doubled = (sum(row[key] for row in rows) for key in ("epochs_lost", "epochs_repeated"))
    same = all(row["equal"] for row in rows)
    return {"kills": done, "searches": len(rows), "epochs_lost": lost, "epochs_repeated": doubled, "equal": same}


ROWS = (machine_falls, raylet_falls, paused_trial_moves, joins, worker_stops, coordinator_ends, random_kills)


def main() -> None:
    wanted = [row for row in ROWS if not sys.argv[1:] or row.__name__ in sys.argv[1:]]
    os.environ["TOY_SECONDS"] = "0.1"
    path = record.RESULTS / "cluster_kills.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder, ray_on_loopback.cluster(0) as (cluster, _):
        machines = Machines(cluster)
        for row in wanted:
            machines.whole()
            began = time.monotonic()
            rows[row.__name__] = row(machines, Path(folder))
            print(f"{row.__name__}, {time.monotonic() - began:.0f} s: {rows[row.__name__]}", flush=True)
            record.write("cluster_kills", rows=rows)


if __name__ == "__main__":
    main()
