from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from toy_trial import TOY

from automl_pt.api.search import steps, study_name
from automl_pt.config import SearchConfig
from automl_pt.core.errors import DeviceError, DeviceLostError, OutputError, StudyError
from automl_pt.core.files import write_json
from automl_pt.reporting.study import read_study
from automl_pt.study import events
from automl_pt.study.budget import Budget
from automl_pt.study.coordinator import Coordinator
from automl_pt.study.executor.inline import InlineEngine
from automl_pt.study.model_store import ModelStore
from automl_pt.study.pruning.rungs import Rungs
from automl_pt.study.records import StudyResult, TrialRecord
from automl_pt.study.space.space import make_space
from automl_pt.study.store.attributes import Outcome, outcome
from automl_pt.study.store.backends import close_storage, default_url, open_storage
from automl_pt.study.store.coordination import SingleCoordinator
from automl_pt.study.store.trials import TrialStore


def search(directory: Path, **settings: Any) -> tuple[StudyResult, list[events.Event]]:
    told = list(steps(config(**settings), directory, objective=TOY))
    last = told[-1]
    assert isinstance(last, events.Finished)
    return last.result, told


def config(**settings: Any) -> SearchConfig:
    return SearchConfig(**{"dataset": "plain", "epochs": 9, "trials": 6, "workers": 0, **settings})


def states(result: StudyResult) -> list[str]:
    return [record.state for record in result.trials]


def without_time(records: tuple[TrialRecord, ...]) -> list[dict[str, Any]]:
    return [{**record.to_dict(), "seconds": None} for record in records]


def test_a_search_ends_with_every_trial_ended_and_the_best_model(tmp_path: Path) -> None:
    result, told = search(tmp_path / "toy")
    assert states(result).count("COMPLETE") == 2
    assert states(result).count("PRUNED") == 4
    best = min((record for record in result.trials if record.state == "COMPLETE"), key=lambda one: one.value or 9)
    assert result.best == best
    assert best.value == best.losses[9]
    assert f'"trial": {best.number},' in (tmp_path / "toy" / "model" / "model.json").read_text()
    assert result.stopped == "trials"
    assert result.comparison is not None
    assert {type(event) for event in told} >= {events.StudyStarted, events.TrialPaused, events.NewBest, events.Progress}
    assert all(event.to_dict()["event"] == type(event).__name__ for event in told)


@pytest.mark.parametrize(
    ("trials", "seed", "lr"),
    [(1, 1, (1e-4, 1.0)), (3, 1, (5e-4, 2e-3)), (16, 1, (5e-4, 2e-3)), (8, 2, (1e-4, 1e-3)), (8, 3, (1e-4, 1e-3))],
)
def test_the_kept_model_is_never_worse_than_the_default(
    tmp_path: Path, trials: int, seed: int, lr: tuple[float, float]
) -> None:
    # in the narrow ranges the default is among the better ones, and may be the best; the model tells its own loss
    result, _ = search(tmp_path / "toy", trials=trials, seed=seed, lr=lr, epochs=5)
    default, _ = search(tmp_path / "default" / "toy", trials=1, seed=seed, lr=lr, epochs=5)
    assert default.best is not None
    assert default.best.value is not None
    assert result.model is not None
    assert json.loads(Path(result.model, "model.json").read_text())["loss"] <= default.best.value


def test_optuna_reads_the_study(tmp_path: Path) -> None:
    result, _ = search(tmp_path / "toy")
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path}/toy/study.db")
    assert result.best is not None
    assert study.best_trial.number == result.best.number
    assert study.best_value == result.best.value
    assert study.trials[0].params == {"lr": 0.001, "batch_size": 16}
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_the_same_command_again_changes_nothing(tmp_path: Path) -> None:
    first, _ = search(tmp_path / "toy")
    second, told = search(tmp_path / "toy")
    assert second.trials == first.trials
    assert second.comparison == first.comparison
    assert not any(isinstance(event, events.TrialStarted) for event in told)


def test_a_study_grows(tmp_path: Path) -> None:
    first, _ = search(tmp_path / "toy", trials=6)
    second, _ = search(tmp_path / "toy", trials=12, lr=(1e-5, 1.0), batch_sizes=(8, 16, 256))
    assert second.trials[:6] == first.trials
    assert len(second.trials) == 12
    assert all(record.state in ("COMPLETE", "PRUNED") for record in second.trials)


@pytest.mark.parametrize(("begun", "storage"), [(("one",), None), (("one", "two"), None), (("one", "two"), "journal")])
def test_a_study_grows_by_backbones_in_whatever_order_they_are_given(
    tmp_path: Path, begun: tuple[str, ...], storage: str | None
) -> None:
    def grown(folder: str, *backbones: str, trials: int) -> tuple[TrialRecord, ...]:
        url = f"journal:{tmp_path}/{folder}.log" if storage else None
        return search(tmp_path / folder, backbones=backbones, trials=trials, storage=url)[0].trials

    first = grown("toy", *begun, trials=4)
    more = grown("toy", "three", *reversed(begun), trials=8)
    most = grown("toy", "four", "three", *begun, trials=14)
    names = [record.params["backbone"] for record in most]
    assert names[0] == "one"
    assert {*names[:4]} == {*begun}
    assert "three" in names[4:8]
    assert "four" in names[8:]
    for before, after in ((first, more[:4]), (more, most[:8])):
        assert [{**one.params, "backbone": "one"} | one.params for one in before] == [one.params for one in after]
        assert [one.losses for one in before] == [one.losses for one in after]
    grown("again", *begun, trials=4)
    grown("again", *begun, "three", trials=8)
    assert without_time(grown("again", "four", *begun, "three", trials=14)) == without_time(most)


def test_a_report_names_the_backbone_of_every_trial_of_a_study_that_has_grown(tmp_path: Path) -> None:
    search(tmp_path / "toy", backbones=("one",), trials=4)
    result, _ = search(tmp_path / "toy", backbones=("two", "one"), trials=8)
    report = read_study(tmp_path / "toy")
    assert report.backbones == ("one", "two")
    assert [trial.params for trial in report.trials] == [trial.params for trial in result.trials]
    assert [trial.params["backbone"] for trial in report.trials[:4]] == ["one"] * 4


@pytest.mark.parametrize("wanted", [("one",), ("one", "three"), ("three",)])
def test_a_list_of_backbones_does_not_shrink(tmp_path: Path, wanted: tuple[str, ...]) -> None:
    search(tmp_path / "toy", backbones=("one", "two"), trials=2)
    with pytest.raises(StudyError) as caught:
        search(tmp_path / "toy", backbones=wanted, trials=2)
    said = f"backbones were one, two and are {', '.join(wanted)}: a list may grow, not shrink"
    assert caught.value.given.endswith(said)
    assert caught.value.rule == (
        "this study exists with other settings; only trials, timeout, ranges and backbones may grow"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 5}, "epochs was 9 and is 5"),
        ({"momentum": 0.5}, "momentum was 0.9 and is 0.5"),
        ({"lr": (1e-3, 1.0)}, "lr was 0.0001:1 and is 0.001:1: a range may grow, not shrink"),
        ({"backbones": ("resnet34",)}, "backbones were resnet18 and are resnet34"),
        ({"seed": 2}, "the training or validation images, or their split, have changed; seed was 1 and is 2"),
    ],
)
def test_what_would_make_results_incomparable_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    search(tmp_path / "toy", trials=2)
    with pytest.raises(StudyError) as caught:
        search(tmp_path / "toy", trials=2, **change)
    assert message in str(caught.value)
    assert "another --name to start a new study" in str(caught.value)


def test_a_study_of_a_version_that_augmented_every_epoch_goes_on_with_always(tmp_path: Path) -> None:
    search(tmp_path / "toy", trials=2, augment="always")
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path}/toy/study.db")
    about = study.user_attrs["automl_pt"]
    about["settings"]["augment"] = "auto"
    study.set_user_attr("automl_pt", about)  # as such a version left it
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    with pytest.raises(StudyError) as caught:
        search(tmp_path / "toy", trials=4)
    assert caught.value.given == f"{tmp_path}/toy: augment was 'always' and is 'early'"
    result, _ = search(tmp_path / "toy", trials=4, augment="always")
    assert len(result.trials) == 4


def test_a_study_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/other.db"
    study = optuna.create_study(storage=url, study_name="toy", direction="maximize")
    study.ask()
    with pytest.raises(StudyError) as caught:
        search(tmp_path / "toy", storage=url)
    assert caught.value.rule == "the study of this name was not created by a search"
    assert caught.value.given == f"{url}: the study 'toy' holds 1 trial of another program"
    assert caught.value.remedy == "choose another --name, or another --storage"
    assert study.user_attrs == {}
    result, _ = search(tmp_path / "toy", storage=url, name="ours", trials=2)
    assert len(result.trials) == 2
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("pruner", ["rungs", "median"])
def test_trials_that_another_program_adds_are_left_alone_and_told_of_once(tmp_path: Path, pruner: str) -> None:
    search(tmp_path / "toy", trials=4, pruner=pruner)
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path}/toy/study.db")
    study.enqueue_trial({"lr": 0.1})
    study.add_trial(optuna.trial.create_trial(value=0.0))
    study.tell(study.ask(), 0.0)  # takes what was enqueued
    study.ask()
    told: list[events.Event] = []
    for event in steps(config(trials=8, pruner=pruner), tmp_path / "toy", objective=TOY):
        told.append(event)
        if isinstance(event, events.TrialStarted) and (event.number, event.epochs_done) == (7, 0):
            study.enqueue_trial({"lr": 0.2})  # while the search is at work
    note = "another program has added 3 trials to this study: ignored, and not counted in --trials"
    assert [event.text for event in told if isinstance(event, events.Notice)].count(note) == 1
    assert isinstance(last := told[-1], events.Finished)
    numbers = [record.number for record in last.result.trials]
    assert numbers == [0, 1, 2, 3, 7, 9, 10, 11]
    assert {record.state for record in last.result.trials} <= {"COMPLETE", "PRUNED"}
    assert last.result.best is not None
    assert last.result.best.number in numbers
    assert [trial.number for trial in read_study(tmp_path / "toy").trials] == numbers
    again, _ = search(tmp_path / "toy", trials=8, pruner=pruner)
    assert again.trials == last.result.trials
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_an_epoch_ranked_but_not_told_before_a_kill_is_told_again(tmp_path: Path) -> None:
    whole, _ = search(tmp_path / "whole", trials=16)
    running = steps(config(trials=16), tmp_path / "toy", objective=TOY)
    number = next(event.trial for event in running if isinstance(event, events.EpochDone) and event.result.epoch == 4)
    running.close()  # type: ignore[attr-defined]
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path}/toy/study.db")
    trial = study.get_trials()[number]
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    ranks = json.dumps({**trial.user_attrs["ranks"], "4": trial.intermediate_values[4]})
    with closing(sqlite3.connect(tmp_path / "toy" / "study.db")) as database, database:
        # as a SIGKILL between the two leaves it: by what the epoch is ranked is there, its loss is not
        database.execute("DELETE FROM trial_intermediate_values WHERE trial_id = ? AND step = 4", (trial._trial_id,))
        database.execute("DELETE FROM trial_user_attributes WHERE trial_id = ? AND key = 'outcome'", (trial._trial_id,))
        for key, value in (("ranks", ranks), ("owner", '"gone"')):
            database.execute(
                "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = ? AND key = ?",
                (value, trial._trial_id, key),
            )
    result, _ = search(tmp_path / "toy", trials=16)
    assert [one.losses for one in result.trials] == [one.losses for one in whole.trials]
    assert 4 in result.trials[number].losses


def test_a_study_begun_with_other_rungs_is_refused_unless_it_is_over(tmp_path: Path) -> None:
    whole, _ = search(tmp_path / "toy", trials=4)
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path}/toy/study.db")
    for trial in study.get_trials():  # as an earlier version would have left them, whose first rung was at a third
        with closing(sqlite3.connect(tmp_path / "toy" / "study.db")) as database, database:
            ranks = {
                ("0.3333" if float(point) < 1 else point): loss for point, loss in trial.user_attrs["ranks"].items()
            }
            database.execute(
                "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = ? AND key = 'ranks'",
                (json.dumps(ranks), trial._trial_id),
            )
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    again, _ = search(tmp_path / "toy", trials=4)
    assert states(again) == states(whole)
    with pytest.raises(StudyError) as caught:
        search(tmp_path / "toy", trials=6)
    assert caught.value.rule == "this study compared its trials at other rungs"
    where = "trials were compared after 0.333 epochs, and now are after 0.875, 4 epochs"
    assert caught.value.given == f"{tmp_path / 'toy'}: {where}"
    assert "--name to start a new study, or `--pruner none`" in caught.value.remedy
    grown, _ = search(tmp_path / "toy", trials=6, pruner="none")
    assert states(grown)[4:] == ["COMPLETE"] * 2


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [("fail-3", "failed: ValueError: this trial was told to fail"), ("memory-3", "failed: out of memory")],
)
def test_a_failed_trial_is_a_failure_and_never_ends_the_study(tmp_path: Path, dataset: str, reason: str) -> None:
    # without pruning, for a pruned trial would not come to the epoch at which it fails
    result, _ = search(tmp_path / "toy", dataset=dataset, pruner="none")
    assert states(result) == ["COMPLETE"] * 3 + ["FAIL"] + ["COMPLETE"] * 2
    assert result.trials[3].reason == reason
    if reason.endswith("memory"):
        smaller = [record.params["batch_size"] for record in result.trials[4:]]
        assert max(smaller) < result.trials[3].params["batch_size"]


@pytest.mark.parametrize("workers", [0, 2])
def test_those_dropped_in_miniature_take_the_places_of_trials_that_fail(tmp_path: Path, workers: int) -> None:
    space: dict[str, Any] = {"epochs": 5, "trials": 8, "workers": workers}
    whole, _ = search(tmp_path / "whole", **space)
    order = [record.number for record in sorted(whole.trials, key=lambda one: one.ranks.get(0.5, 9))]
    assert sorted(order[:2]) == [record.number for record in whole.trials if record.state == "COMPLETE"]
    for count in (1, 2):
        fail = ",".join(map(str, order[:count]))
        result, _ = search(tmp_path / fail, dataset=f"several-{fail}", **space)
        assert [record.state for record in result.trials if record.number in order[:count]] == ["FAIL"] * count
        done = [record.number for record in result.trials if record.state == "COMPLETE"]
        # of three at the second look, one is left to replace two
        assert done == sorted(order[count:3])
        assert result.best is not None
        assert result.best.number in done


def test_a_diverged_trial_ends_at_once_and_never_wins(tmp_path: Path) -> None:
    result, _ = search(tmp_path / "toy", dataset="diverge-4", pruner="none")
    assert result.trials[4].state == "PRUNED"
    assert result.trials[4].reason == "diverged"
    assert result.trials[4].epochs == 2
    assert list(result.trials[4].losses) == [1]
    assert result.best is not None
    assert result.best.number != 4


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", [0, 4])
def test_a_trial_that_diverges_within_its_first_epoch_ends_there(tmp_path: Path, number: int, workers: int) -> None:
    result, _ = search(tmp_path / "toy", dataset=f"early-{number}", workers=workers)
    lost = result.trials[number]
    assert (lost.state, lost.reason, lost.epochs, lost.value) == ("PRUNED", "diverged", 0, None)
    assert states(result).count("COMPLETE") == 2
    assert result.best is not None
    assert result.best.number != number


def test_a_trial_dropped_at_the_first_rung_has_cost_part_of_an_epoch(tmp_path: Path) -> None:
    result, told = search(tmp_path / "toy", trials=16)
    dropped = [record for record in result.trials if record.reason == "pruned" and record.epochs == 0]
    assert len(dropped) == 13
    assert all(record.value is None and record.losses == {} and record.seconds == 0.003 for record in dropped)
    assert all(list(record.ranks) == [record.ranked_at] == [record.epochs_done] == [7 / 8] for record in dropped)
    ranked = {event.trial: event.rank_loss for event in told if isinstance(event, events.TrialRanked)}
    assert {record.number: record.rank_loss for record in result.trials} == ranked
    epochs = sum(isinstance(event, events.EpochDone) for event in told)
    assert epochs == 3 * 4 + 2 * 5
    paused = {event.epoch for event in told if isinstance(event, events.TrialPaused)}
    assert paused == {7 / 8, 4}


@pytest.mark.parametrize(("told", "seconds"), [(1.5, 1.5), ({"0.125": 1.0, "0.5": 2.0}, 3.0)])
def test_what_runs_in_miniature_took_is_read_as_an_earlier_version_wrote_it_too(told: Any, seconds: float) -> None:
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs={"probe_seconds": told})
    assert outcome(trial).seconds == seconds


def test_an_error_that_every_trial_would_meet_ends_the_study_which_can_go_on(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="a device must stay"):
        search(tmp_path / "toy", dataset="fatal-1", pruner="none")
    result, _ = search(tmp_path / "toy", pruner="none")
    assert states(result) == ["COMPLETE"] * 6


def test_when_every_trial_fails_the_commonest_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no model: the only trial failed: ValueError: this trial"):
        search(tmp_path / "toy", dataset="fail-0", pruner="none", trials=1)


@pytest.mark.parametrize("pruner", ["median", "hyperband", "successive-halving", "percentile"])
def test_optunas_pruners_work_as_they_are(tmp_path: Path, pruner: str) -> None:
    result, _ = search(tmp_path / "toy", pruner=pruner, trials=12)
    assert set(states(result)) <= {"COMPLETE", "PRUNED"}
    assert states(result)[0] == "COMPLETE"
    assert pruner == "percentile" or "PRUNED" in states(result)


def test_losers_leave_no_checkpoints_and_only_the_best_keeps_its_weights(tmp_path: Path) -> None:
    result, _ = search(tmp_path / "toy")
    assert result.best is not None
    left = sorted(path.parent.name for path in (tmp_path / "toy" / "trials").glob("*/model.json"))
    assert left == [str(result.best.number)]
    kept_more, _ = search(tmp_path / "more", keep_models=2)
    assert len(list((tmp_path / "more" / "trials").glob("*/model.json"))) == 2
    assert not list(tmp_path.glob("*/trials/*/checkpoints"))


@pytest.mark.parametrize(
    ("space", "workers"),
    [({"lr": (8e-4, 1.5e-3)}, 0), ({"lr": (1e-4, 1e-3), "batch_sizes": (16, 64)}, 0), ({"lr": (8e-4, 1.5e-3)}, 2)],
)
def test_at_no_time_are_there_more_checkpoints_than_the_bound(
    tmp_path: Path, space: dict[str, tuple[float, ...]], workers: int
) -> None:
    directory, most, result = tmp_path / "toy", 0, None
    for event in steps(config(trials=16, workers=workers, **space), directory, objective=TOY):
        most = max(most, len(list((directory / "trials").glob("*/checkpoints"))))
        result = event.result if isinstance(event, events.Finished) else None
    assert result is not None
    order = sorted(result.trials, key=lambda trial: (trial.ranks[7 / 8], trial.number))
    outside = [trial.number for trial in order].index(0) >= 3
    assert outside == ("batch_sizes" not in space)  # where smaller batches are better, but near enough to go on
    bound = 3 + outside  # the first rung's quota, and trial 0 outside it; a run in miniature keeps nothing
    assert 2 <= most <= bound, most


def test_when_all_who_went_on_fail_the_best_of_those_dropped_is_the_model(tmp_path: Path) -> None:
    result, _ = search(tmp_path / "toy", dataset="late-5", trials=24, workers=4)
    assert {"FAIL", "PRUNED"} == set(states(result))
    assert result.best is not None
    assert (result.best.state, result.best.epochs) == ("PRUNED", 4)
    assert json.loads(Path(result.model or "", "model.json").read_text())["trial"] == result.best.number


def test_leaving_the_search_and_calling_it_again_gives_the_same_study(tmp_path: Path) -> None:
    whole, _ = search(tmp_path / "whole" / "toy")
    for stop_after in range(3, 40, 4):
        run = steps(config(), tmp_path / "broken" / "toy", objective=TOY)
        for _ in zip(range(stop_after), run, strict=False):
            pass
        run.close()
    broken, _ = search(tmp_path / "broken" / "toy")
    assert without_time(broken.trials) == without_time(whole.trials)


def test_a_signal_pauses_the_search_with_everything_kept(tmp_path: Path) -> None:
    stop: list[int] = []
    result = None
    for event in steps(config(), tmp_path / "toy", objective=TOY, stop=lambda: stop[0] if stop else None):
        if isinstance(event, events.EpochDone):
            stop.append(signal.SIGTERM)
        if isinstance(event, events.Finished):
            result = event.result
    assert result is not None
    assert (result.stopped, result.signal) == ("interrupted", signal.SIGTERM)
    assert result.model is not None
    assert Path(result.model, "model.json").exists()
    assert any(record.reason == "paused" for record in result.trials)
    again, _ = search(tmp_path / "toy")
    whole, _ = search(tmp_path / "whole" / "toy")
    assert without_time(again.trials) == without_time(whole.trials)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_trial_whose_last_epoch_was_done_when_a_signal_came_has_ended(tmp_path: Path, workers: int) -> None:
    stop: list[int] = []
    told: list[events.Event] = []
    for event in steps(
        config(workers=workers), tmp_path / "toy", objective=TOY, stop=lambda: stop[0] if stop else None
    ):
        told.append(event)
        if isinstance(event, events.EpochDone) and event.result.reason is not None:
            stop.append(signal.SIGTERM)
    last = told[-1]
    assert isinstance(last, events.Finished)
    assert states(last.result).count("COMPLETE") == 1


def test_two_searches_in_one_folder_are_refused(tmp_path: Path) -> None:
    first = steps(config(), tmp_path / "toy", objective=TOY)
    next(first)
    with pytest.raises(OutputError, match="in use by another process"):
        search(tmp_path / "toy")
    first.close()


def test_a_study_whose_folder_was_removed_while_it_ran_says_so(tmp_path: Path) -> None:
    last = None
    for number, event in enumerate(steps(config(trials=4), tmp_path / "toy", objective=TOY)):
        last = event
        if number == 6:
            shutil.rmtree(tmp_path / "toy")
    assert isinstance(last, events.Finished)
    assert "files of the study were removed while it ran: it cannot be resumed or reported" in last.result.notes


def test_a_storage_and_a_folder_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    storages = [f"journal:{tmp_path}/{name}.log" for name in ("first", "second")]
    folders = [tmp_path / "here" / "toy", tmp_path / "there" / "toy"]
    first, _ = search(folders[0], storage=storages[0])
    for number in range(6):
        write_json(folders[0] / "trials" / str(number) / "run.json", {})  # as a real trial does
    with pytest.raises(StudyError) as caught:  # its trials would be taken for the new study's
        search(folders[0], storage=storages[1], epochs=5)
    assert caught.value.given == (
        f"{folders[0]}: the runs of 6 trials of the study 'toy', begun in {storages[0]}, which is not in {storages[1]} "
        "under the requested name"
    )
    assert "--storage that the study started with" in caught.value.remedy
    with pytest.raises(StudyError) as caught:
        search(folders[1], storage=storages[0])
    assert caught.value.given == (
        f"{folders[1]}: it has no runs, and in {storages[0]} 2 trials of the study are complete"
    )
    assert "start the command where it was started before" in caught.value.remedy
    again, _ = search(folders[0], storage=storages[0])
    assert without_time(again.trials) == without_time(first.trials)


def test_the_time_counts_from_when_the_command_was_given(tmp_path: Path) -> None:
    # loading PyTorch took all of it
    told = list(steps(config(timeout=60), tmp_path / "toy", objective=TOY, since=time.monotonic() - 60))
    assert isinstance(told[-1], events.Finished)
    assert (told[-1].result.stopped, told[-1].result.trials) == ("timeout", ())
    assert told[-1].result.seconds > 60


@pytest.mark.parametrize("storage", ["sqlite:///{}/shared.db", "journal:{}/shared.log"])
def test_two_searches_of_one_study_in_a_file_are_refused_from_two_folders_too(tmp_path: Path, storage: str) -> None:
    url = storage.format(tmp_path)
    first = steps(config(storage=url), tmp_path / "here" / "toy", objective=TOY)
    next(first)
    with pytest.raises(OutputError, match="in use by another process"):
        search(tmp_path / "there" / "toy", storage=url)
    other, _ = search(tmp_path / "there" / "other", storage=url, trials=1)
    assert states(other) == ["COMPLETE"]
    first.close()


def test_the_file_in_a_studys_own_folder_is_refused_to_others_too(tmp_path: Path) -> None:
    first = steps(config(), tmp_path / "here" / "toy", objective=TOY)
    next(first)
    (tmp_path / "link").symlink_to(tmp_path / "here")
    for name in ("here", "link"):
        with pytest.raises(OutputError, match="in use by another process"):
            search(tmp_path / "there" / "toy", storage=default_url(tmp_path / name / "toy"))
    first.close()


@pytest.mark.parametrize("seconds", [4.0])
def test_the_timeout_is_kept_and_leaves_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setenv("TOY_SECONDS", "0.05")
    started = time.monotonic()
    result, _ = search(tmp_path / "toy", trials=500, timeout=seconds)
    assert time.monotonic() - started < 1.02 * seconds + 0.5  # the half second is for busy machines
    assert result.stopped == "timeout"
    assert result.best is not None
    assert result.model is not None


class Together(SingleCoordinator):
    """One of several coordinators, who all live, and take turns by themselves."""

    has_company = True

    def __init__(self, owner: str) -> None:
        self.owner = owner


def test_a_coordinator_does_not_publish_over_the_better_model_of_another(tmp_path: Path) -> None:
    settings, model_store = config(), ModelStore(tmp_path, TOY.publish)
    opened = [open_storage(f"sqlite:///{tmp_path}/study.db") for _ in range(2)]
    ledgers = [TrialStore(storage, "toy", Together(owner), "") for owner, storage in zip("ab", opened, strict=True)]
    rule, space, engine = Rungs.over(9, 5000), make_space(settings, 1000), InlineEngine(lambda spec, stop: iter(()))
    for number, trial_store in enumerate(ledgers):
        trial_store.refresh()
        trial_store.add(space.default(), space.distributions())
        write_json(model_store.output(number) / "model.json", {"trial": number})
    ledgers[0].refresh()
    told = []
    for number in (1, 0):  # the first does not know yet that the second has a better one
        ledgers[number].end(number, "COMPLETE", Outcome("completed", 0.5 - 0.1 * number, 9, 1.0))
        one = Coordinator(settings, ledgers[number], model_store, engine, rule, space, Budget(None), lambda: None)
        told += list(one.keep_best())
    assert [event.number for event in told if isinstance(event, events.NewBest)] == [1]
    assert json.loads((model_store.model / "model.json").read_text()) == {"trial": 1}
    for storage in opened:
        close_storage(storage)


# -- with worker processes --------------------------------------------------------------------------------------------


def test_two_workers_bring_the_same_trials_as_none(tmp_path: Path) -> None:
    one, _ = search(tmp_path / "one" / "toy", trials=8)
    two, told = search(tmp_path / "two" / "toy", trials=8, workers=2)
    assert without_time(two.trials) == without_time(one.trials)
    assert isinstance(told[0], events.StudyStarted)
    assert told[0].workers == 2


def test_a_crashed_worker_is_replaced_and_its_trial_goes_on(tmp_path: Path) -> None:
    result, told = search(tmp_path / "toy", dataset="crashonce-2", pruner="none", trials=4, workers=2)
    assert states(result) == ["COMPLETE"] * 4
    notices = [event.text for event in told if isinstance(event, events.Notice)]
    assert [text for text in notices if not text.startswith("batch sizes above")] == [
        "trial 2: its process was ended by SIGKILL, often because memory ran out; it resumes from its last epoch"
    ]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("lost", "its GPU failed (CUDA error: device-side assert triggered)"),
        ("unrecorded", "a CUDA graph could not be recorded (operation not permitted when stream is capturing)"),
    ],
)
def test_a_worker_that_lost_its_gpu_is_replaced_and_no_trial_fails(tmp_path: Path, kind: str, told: str) -> None:
    result, found = search(tmp_path / "toy", dataset=f"{kind}-1", pruner="none", trials=4, workers=1)
    assert states(result) == ["COMPLETE"] * 4
    notices = [event.text for event in found if isinstance(event, events.Notice)]
    assert f"trial 1: {told}; it resumes from its last epoch" in notices


def test_a_search_in_this_process_ends_when_the_gpu_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toy_trial.LOST", [])
    with pytest.raises(DeviceLostError, match="run the same command again"):
        search(tmp_path / "toy", dataset="lost-1", pruner="none", trials=4, workers=0)


def test_a_trial_that_always_crashes_fails_in_the_end(tmp_path: Path) -> None:
    result, _ = search(tmp_path / "toy", dataset="crash-2", pruner="none", trials=4, workers=2)
    assert states(result) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    reason = "failed: its process was ended by SIGKILL, often because memory ran out, 3 times"
    assert result.trials[2].reason == reason


def test_a_trial_that_hangs_fails(tmp_path: Path) -> None:
    result, _ = search(tmp_path / "toy", dataset="hang-1", pruner="none", trials=3, workers=2, trial_timeout=3)
    assert states(result) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert result.trials[1].reason == "failed: hung: no epoch within 3 seconds"


def test_a_fatal_error_comes_out_of_a_worker_as_it_went_in(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        search(tmp_path / "toy", dataset="fatal-0", workers=1, pruner="none")
    assert (caught.value.rule, caught.value.given) == ("a device must stay", "cuda:7")


SEARCH = """
import sys
from pathlib import Path
from toy_trial import TOY
from automl_pt.config import SearchConfig
from automl_pt.api.search import steps
for event in steps(SearchConfig(dataset="plain", epochs=9, trials=6, workers=2), Path(sys.argv[1]), objective=TOY):
    print(type(event).__name__, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_worker_outlives_its_coordinator(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TOY_SECONDS": "5"}
    command = [sys.executable, "-c", SEARCH, str(tmp_path / "toy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        while "TrialStarted" not in process.stdout.readline():
            pass
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        process.kill()
    deadline = time.monotonic() + 5
    while any(Path("/proc", child).exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path("/proc", child).exists() for child in children)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"dataset": "digits"}, "digits"),
        ({"dataset": "/data/My-Photos/"}, "My-Photos"),
        ({"dataset": "/data/My Photos/"}, "My-Photos-e323ab"),
        ({"dataset": "torchvision/cifar10"}, "cifar10"),
        ({"dataset": "x", "name": "given"}, "given"),
        ({"dataset": "/"}, "study"),
    ],
)
def test_the_study_is_named_after_its_data(settings: dict[str, Any], name: str) -> None:
    assert study_name(SearchConfig(**settings)) == name


def test_a_search_may_end_when_nothing_improves_any_more(tmp_path: Path) -> None:
    endless, _ = search(tmp_path / "endless", trials=40, epochs=3)
    result, _ = search(tmp_path / "toy", trials=40, epochs=3, stop_when_flat=True)
    assert result.stopped == "flat"
    assert 16 <= len(result.trials) < len(endless.trials) == 40
    assert result.best is not None
    assert endless.best is not None
    assert (result.best.value or 9) < (endless.best.value or 0) + 0.1
