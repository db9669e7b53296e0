"""A third engine behind the interface: two actors on threads of their own, to which nothing but JSON texts passes.

It is what a cluster engine would be: `call` is a remote method, the future it gives a reference to what is to come.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import toy_trial
from toy_trial import TOY

from automl_pt.api import search
from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core.errors import AutomlError
from automl_pt.study import setup as opening
from automl_pt.study.executor.base import Answer, Call, Caller, Engine, ProxyRun, Report, TrialSpec
from automl_pt.study.executor.calls import as_plain as error_as_plain
from automl_pt.study.executor.calls import from_plain as error_from_plain
from automl_pt.study.executor.calls import returned
from automl_pt.study.executor.inline import InlineEngine
from automl_pt.study.executor.worker import load
from automl_pt.study.records import StudyResult
from automl_pt.training.result import EpochResult


class Actor:
    """Lives elsewhere: takes a command as a text, and answers with what its trial gave, as a text."""

    def __init__(self) -> None:
        self.inner = InlineEngine(toy_trial.make)

    def call(self, text: str) -> str:
        command = json.loads(text)
        if command["do"] == "start":
            paths = {name: Path(command[name]) for name in ("output", "manifest")}
            spec = {**command["spec"], **paths, "config": TrainConfig(**command["config"])}
            self.inner.start(TrialSpec(**{**spec, "ranked_at": tuple(spec["ranked_at"])}))
        elif command["do"] == "go_on":
            self.inner.resume(command["number"], command["until"])
        elif command["do"] == "call":
            return json.dumps(answer(command))
        elif command["do"] == "pause":
            self.inner.pause(command["number"])
            return "[]"
        return json.dumps([plain(report) for report in self.inner.wait(0)])


def answer(command: dict[str, Any]) -> dict[str, Any]:
    told: list[str] = []
    place: dict[str, Any] = {"device": "cpu", "threads": 1, "contact": Caller(told.append)}
    try:
        found = load(command["function"])(**command["arguments"], **place)
        if isinstance(found, Generator):
            found = returned(found, told.append)
    except AutomlError as error:
        return {"told": told, "error": error_as_plain(error)}
    return {"told": told, "returned": found}


def plain(report: Report) -> dict[str, Any]:
    told = {name: getattr(report, name) for name in ("number", "held", "ended", "left", "failure")}
    epoch = None if report.epoch is None else report.epoch.to_dict()
    return {**told, "epoch": epoch, "probe": None if report.probe is None else asdict(report.probe)}


def from_plain(told: dict[str, Any]) -> Report:
    epoch = None if told["epoch"] is None else EpochResult.from_dict(told["epoch"])
    return Report(**{**told, "epoch": epoch, "probe": None if told["probe"] is None else ProxyRun(**told["probe"])})


class ActorEngine:
    slots = 2

    def __init__(self) -> None:
        self.free = [Actor() for _ in range(self.slots)]
        self.actors: dict[int, Actor] = {}
        self.pool = ThreadPoolExecutor(self.slots)
        self.futures: dict[Future[str], int] = {}

    def send(self, number: int, **command: Any) -> None:
        text = json.dumps({"number": number, **command})
        self.futures[self.pool.submit(self.actors[number].call, text)] = number

    def start(self, spec: TrialSpec) -> None:
        self.actors[spec.number] = self.free.pop()
        values = {"number": spec.number, "until": spec.next_rung, "ranked_at": spec.ranked_at}
        places = {"output": str(spec.output), "manifest": str(spec.manifest)}
        self.send(spec.number, do="start", spec=values, config=spec.config.model_dump(mode="json"), **places)

    def resume(self, number: int, next_rung: float) -> None:
        self.send(number, do="go_on", next_rung=next_rung)

    def pause(self, number: int) -> None:
        actor = self.actors.pop(number)
        actor.call(json.dumps({"do": "pause", "number": number}))
        self.free.append(actor)

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Answer:
        text = json.dumps({"do": "call", "function": call.function, "arguments": dict(call.arguments)})
        found = json.loads(self.pool.submit(self.free[0].call, text).result())
        yield from found["told"]
        if "error" in found:
            raise error_from_plain(found["error"])
        return found["returned"]

    def wait(self, timeout: float) -> list[Report]:
        done, _ = wait_for(self.futures, timeout, FIRST_COMPLETED)
        reports: list[Report] = []
        for future in done:
            number = self.futures.pop(future)
            told = [from_plain(one) for one in json.loads(future.result())]
            reports += told
            if any(one.ended or one.left or one.failure for one in told):
                self.free.append(self.actors.pop(number))
            elif not any(one.held for one in told):
                self.send(number, do="step")
        return reports

    def halt(self, grace: float) -> list[Report]:
        return []

    def close(self, grace: float = 0.0) -> list[Report]:
        self.pool.shutdown()
        return []


def run(directory: Path) -> StudyResult:
    config = SearchConfig(dataset="plain", epochs=9, trials=10, workers=0)
    return list(search.steps(config, directory, objective=TOY))[-1].result  # type: ignore[attr-defined, no-any-return]


def test_an_engine_of_actors_brings_the_same_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = run(tmp_path / "here")
    engine: Engine = ActorEngine()
    monkeypatch.setattr(opening, "_make_engine", lambda *given: engine)
    there = run(tmp_path / "there")
    assert [{**one.to_dict(), "seconds": 0} for one in there.trials] == (
        [{**one.to_dict(), "seconds": 0} for one in here.trials]
    )
    assert there.comparison == here.comparison is not None
