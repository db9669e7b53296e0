from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_pt.core.errors import UnknownNameError
from automl_pt.plugins.manager import load_plugins
from automl_pt.plugins.pruners import Pruner
from automl_pt.study.pruning.base import TrialProgress
from automl_pt.study.pruning.optuna_rules import make_rule
from automl_pt.study.pruning.rungs import Rungs

S, H, L = 1 / 8, 1 / 2, 7 / 8


@pytest.mark.parametrize("images", [1600, 5000, 10**6])
@pytest.mark.parametrize("epochs", [2, 5, 8, 9, 27])
def test_many_images_are_run_in_miniature_twice(epochs: int, images: int) -> None:
    assert Rungs.over(epochs, images).rung_resources == (S, H, epochs)


@pytest.mark.parametrize(
    ("epochs", "images", "rung_resources"),
    [(epochs, images, (H, epochs)) for epochs in (2, 4) for images in (1, 999, 1000, 1599)]
    + [(epochs, images, (L, epochs)) for epochs in (5, 8) for images in (1, 999)]
    + [(epochs, images, (H, epochs)) for epochs in (5, 8) for images in (1000, 1599)]
    + [(epochs, images, (L, epochs // 2, epochs)) for epochs in (9, 10, 27) for images in (1, 999, 1000, 1599)],
)
def test_few_images_are_run_in_miniature_once(epochs: int, images: int, rung_resources: tuple[float, ...]) -> None:
    assert Rungs.over(epochs, images).rung_resources == rung_resources


@pytest.mark.parametrize(
    ("epochs", "images", "rung_resources", "cohorts"),
    [
        (epochs, images, (H, middle, epochs), [16, 2, 1])
        for epochs, middle in ((2, 1), (5, 3), (9, 5))
        for images in (1, 1599)
    ]
    + [(5, 1600, (S, H, 3, 5), [16, 6, 2, 1]), (1, 600, (1,), [16])],
)
def test_trials_from_weights_have_a_proxy_run_of_half_an_epoch_and_are_compared_in_the_middle(
    epochs: int, images: int, rung_resources: tuple[float, ...], cohorts: list[int]
) -> None:
    rule = Rungs.over(epochs, images, from_weights=True)
    assert rule.rung_resources == rung_resources
    assert [rule.cohort_size(rung, 16) for rung in range(len(rung_resources))] == cohorts


@pytest.mark.parametrize(("loss", "verdict"), [(0.309, "promote"), (0.31, "prune"), (math.nan, "prune")])
def test_a_finalist_goes_on_in_the_middle_while_it_is_close(loss: float, verdict: str) -> None:
    rule = Rungs.over(5, 600, from_weights=True)
    first, second = TrialProgress(3, {1: 0.6, 2: 0.4, 3: 0.3}), TrialProgress(5, {1: 0.8, 2: loss, 3: loss})
    rest = [TrialProgress(number, {}, "pruned", ranks={H: 2.0}) for number in (0, 1, 2, 4)]
    assert rule.verdict(5, [first, second, *rest], 6) == verdict
    assert rule.verdict(3, [first, second, *rest], 6) == "promote"
    assert rule.verdict(3, [first, replace(second, losses={1: 0.8}), *rest], 6) == "wait"


def test_no_proxy_run_decides_about_the_default_from_weights() -> None:
    rule = Rungs.over(5, 600, from_weights=True)
    ranked = [TrialProgress(number, {}, ranks={H: loss}) for number, loss in enumerate((1.5, 0.9, 0.8, 0.7, 1.0, 1.1))]
    assert [rule.verdict(one.number, ranked, 6) for one in ranked] == [
        "promote",
        "wait",
        "wait",
        "promote",
        "prune",
        "prune",
    ]
    assert rule.verdict(0, ranked[:1], 6) == "promote"
    assert rule.verdict(0, [TrialProgress(0, {}, ranks={H: math.nan}), *ranked[1:]], 6) == "prune"
    behind = [replace(ranked[0], losses={1: 0.9, 2: 0.6, 3: 0.5}), replace(ranked[3], losses={1: 0.5, 2: 0.4, 3: 0.3})]
    rest = [replace(ranked[number], end="pruned") for number in (1, 2, 4, 5)]
    assert [rule.verdict(one.number, [*behind, *rest], 6) for one in behind] == ["prune", "promote"]


def test_where_a_finalist_is_lost_the_other_waits_for_the_one_that_replaces_it() -> None:
    rule = Rungs.over(5, 600, from_weights=True)
    first, lost = TrialProgress(3, {1: 0.6, 2: 0.4, 3: 0.3}), TrialProgress(5, {1: 0.8}, "lost", ranks={H: 0.7})
    spare = TrialProgress(4, {}, ranks={H: 0.9})
    rest = [TrialProgress(number, {}, "pruned", ranks={H: 2.0}) for number in (0, 1, 2)]
    assert rule.verdict(4, [first, lost, spare, *rest], 6) == "promote"
    assert rule.verdict(3, [first, lost, spare, *rest], 6) == "wait"
    ahead = replace(spare, losses={1: 0.5, 2: 0.3, 3: 0.2})
    assert rule.verdict(3, [first, lost, ahead, *rest], 6) == "prune"
    assert rule.verdict(3, [first, lost, replace(spare, end="lost"), *rest], 6) == "promote"


def test_a_run_of_one_epoch_has_no_rungs() -> None:
    assert Rungs.over(1, 600) == Rungs.over(1, 5000) == Rungs((1,))


def test_at_least_two_go_on_from_every_rung() -> None:
    assert [Rungs.over(5, 5000).cohort_size(rung, 16) for rung in range(3)] == [16, 6, 2]
    assert [Rungs.over(15, 5000).cohort_size(rung, 64) for rung in range(3)] == [64, 24, 8]
    assert [Rungs.over(5, 600).cohort_size(rung, 16) for rung in range(2)] == [16, 2]
    assert [Rungs.over(5, 600).cohort_size(rung, 64) for rung in range(2)] == [64, 8]
    assert [Rungs.over(9, 600).cohort_size(rung, 16) for rung in range(3)] == [16, 3, 2]
    assert [Rungs.over(9, 600).cohort_size(rung, 64) for rung in range(3)] == [64, 12, 8]
    rule = Rungs((1, 3, 9))
    assert [rule.cohort_size(rung, 3) for rung in range(3)] == [3, 2, 2]
    assert [rule.cohort_size(rung, 1) for rung in range(3)] == [1, 1, 1]
    assert [rule.cohort_size(rung, 0) for rung in range(3)] == [0, 0, 0]


def test_a_verdict_waits_until_it_is_certain() -> None:
    rule = Rungs((1, 3))
    good, bad = TrialProgress(1, {1: 0.1}), TrialProgress(2, {1: 0.9})
    assert rule.verdict(1, [good], 6) == "wait"
    others = [TrialProgress(number, {1: 0.5}) for number in range(3, 6)]
    assert rule.verdict(1, [good, bad, *others], 6) == "promote"
    assert rule.verdict(2, [good, bad, *others], 6) == "prune"
    assert rule.verdict(3, [good, bad, *others], 6) == "wait"


def test_a_trial_without_a_finite_loss_never_climbs() -> None:
    rule = Rungs((1, 3))
    assert rule.verdict(1, [TrialProgress(1, {1: math.inf})], 2) == "prune"


DEFAULTS = [(0.01, "promote"), (0.2, "promote"), (0.21, "promote"), (0.23, "prune"), (math.inf, "prune")]


@pytest.mark.parametrize(("loss", "verdict"), DEFAULTS)
def test_the_default_trial_is_dropped_only_when_it_is_clearly_behind(loss: float, verdict: str) -> None:
    rule = Rungs((1, 3, 9), margin=0.1)
    competitors = [TrialProgress(number, {1: 0.1 * number}) for number in range(1, 6)]
    assert rule.verdict(0, [TrialProgress(0, {1: loss}), *competitors], 6) == verdict
    # a fifth trial could still be better than all: what is clearly behind stays so, the rest is not certain
    certain = verdict if verdict == "prune" or loss == 0.01 else "wait"
    assert rule.verdict(0, [TrialProgress(0, {1: loss}), *competitors[:-1]], 6) == certain


def test_clearly_behind_is_more_than_three_per_cent() -> None:
    competitors = [TrialProgress(number, {}, ranks={S: 1.0 + 0.1 * number}) for number in range(1, 16)]
    for loss, verdict in ((1.647, "promote"), (1.649, "prune")):  # the sixth, the last that goes on, has 1.6
        assert Rungs.over(9, 5000).verdict(0, [TrialProgress(0, {}, ranks={S: loss}), *competitors], 16) == verdict


def test_beyond_the_first_rung_an_excused_default_trial_takes_nobodys_place() -> None:
    rule = Rungs((1, 3, 9), margin=0.1)
    competitors = [TrialProgress(number, {1: 0.1 * number, 3: 0.1 * number}) for number in (1, 2)]
    competitors += [TrialProgress(number, {1: 0.1 * number}, "pruned") for number in range(3, 6)]
    for score, verdict in ((0.01, "promote"), (0.21, "promote"), (0.3, "prune")):
        default = TrialProgress(0, {1: 0.5, 3: 0.5}, ranks={1: 0.21, 3: score})
        verdicts = [rule.verdict(number, [default, *competitors], 6) for number in range(3)]
        assert verdicts == [verdict, "promote", "promote"]
        assert rule.verdict(1, [default, *competitors], 6) == "promote"


def test_an_excused_default_trial_waits_for_those_it_is_compared_with() -> None:
    # at the second rung two of three go on: the second best of them may still be near the default, or far below it
    rule = Rungs((1, 3, 9), margin=0.1)
    default = TrialProgress(0, {1: 0.31, 3: 0.31})
    competitors = [TrialProgress(number, {1: 0.1 * number}) for number in (1, 2, 3)]
    competitors += [TrialProgress(number, {1: 0.9}, "pruned") for number in range(4, 9)]
    first = replace(competitors[0], losses={1: 0.1, 3: 0.1})
    assert rule.verdict(0, [default, first, *competitors[1:]], 9) == "wait"
    for second, verdict in ((0.3, "promote"), (0.2, "prune")):
        later = [replace(one, losses={**one.losses, 3: second}, ranks={3: second}) for one in competitors[1:3]]
        assert rule.verdict(0, [default, first, *later, *competitors[3:]], 9) == verdict


@pytest.mark.parametrize(
    "default", [TrialProgress(0, {1: 0.25}), TrialProgress(0, {1: 0.9}, "pruned"), TrialProgress(0, {}, "lost")]
)
def test_a_default_trial_that_is_behind_takes_nobodys_place(default: TrialProgress) -> None:
    rule = Rungs((1, 3))
    competitors = [TrialProgress(number, {1: 0.1 * number}) for number in range(1, 6)]
    verdicts = [rule.verdict(rival.number, [default, *competitors], 6) for rival in competitors]
    assert verdicts == ["promote"] * 2 + ["prune"] * 3


def climb(rule: Rungs, losses: dict[int, list[float]], lost: set[int], order: random.Random) -> dict[int, float]:
    """Run a study in which trials take their turns at random; return how many epochs each was given.

    Each takes a step to the next epoch, or to a rung within the first; `losses` holds the rung's loss first.
    """
    progress_list = {number: TrialProgress(number, {}) for number in losses}
    allowed = dict.fromkeys(losses, rule.next_rung(0))
    while True:
        movable = [number for number, one in progress_list.items() if one.end is None and one.epoch < allowed[number]]
        if not movable:
            return {number: one.epoch for number, one in progress_list.items()}
        number = order.choice(movable)
        one = progress_list[number]
        point = min(math.floor(one.epoch) + 1, rule.next_rung(one.epoch))
        if point < 1:
            progress_list[number] = replace(one, ranks={**one.ranks, point: losses[number][0]})
        else:
            epoch = int(point)
            end = "lost" if number in lost and epoch == 2 else "finished" if epoch == rule.rung_resources[-1] else None
            progress_list[number] = replace(one, losses={**one.losses, epoch: losses[number][epoch]}, end=end)
        decided = True
        while decided:  # the end of one may decide about another
            decided = False
            for waiting, one in list(progress_list.items()):
                if one.end is None and one.epoch == allowed[waiting]:
                    verdict = rule.verdict(waiting, list(progress_list.values()), len(losses))
                    decided = decided or verdict != "wait"
                    if verdict == "promote":
                        allowed[waiting] = rule.next_rung(one.epoch)
                    elif verdict == "prune":
                        progress_list[waiting] = replace(one, end="pruned")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 10_000), st.data())
def test_the_outcome_does_not_depend_on_who_was_first(trials: int, epochs: int, seed: int, data: st.DataObject) -> None:
    draw = random.Random(seed)
    low = draw.choice([0.0, 0.8])  # losses near each other, or far apart: for the default trial that is not the same
    losses = {
        number: [low + (1 - low) * draw.choice([0.1, 0.2, draw.random()]) for _ in range(epochs + 1)]
        for number in range(trials)
    }
    lost = {number for number in losses if draw.random() < 0.2}
    rule = Rungs.over(epochs, draw.choice([600, 1200, 5000]), from_weights=draw.random() < 0.5)
    outcomes = [climb(rule, losses, lost, random.Random(order)) for order in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(2, 20), st.integers(0, 10_000))
def test_exactly_the_quota_climbs_and_no_one_is_left_waiting(trials: int, epochs: int, seed: int) -> None:
    draw = random.Random(seed)
    losses = {number: [draw.random() for _ in range(epochs + 1)] for number in range(trials)}
    rule = Rungs.over(epochs, 5000)
    given_epochs = climb(rule, losses, set(), draw)
    for rung, level in enumerate(rule.rung_resources):
        came = sum(done >= level for done in given_epochs.values())
        others = sum(done >= level for number, done in given_epochs.items() if number != 0)
        assert rule.cohort_size(rung, trials) in (came, others)


@pytest.mark.parametrize("trials", [1, 2, 3, 16])
def test_the_expected_epochs_are_those_that_are_then_run(trials: int) -> None:
    rule = Rungs.over(9, 600)
    losses = {number: [1.0 / (number + 1)] * 10 for number in range(trials)}
    given = climb(rule, losses, set(), random.Random(0)).values()
    # who begins in full has been run in miniature besides
    assert rule.expected_epochs([], trials) == pytest.approx(sum(given) + sum(epochs >= 1 for epochs in given) * L)


def test_the_expected_epochs_are_those_of_runs_in_miniature_and_of_trials_in_full() -> None:
    rule = Rungs.over(5, 5000)
    assert rule.expected_epochs([], 16) == 16 * S + 6 * H + 2 * 5
    ranked = [TrialProgress(number, {}, ranks={S: 1.0 + number}) for number in range(16)]
    assert rule.expected_epochs(ranked, 16) == 6 * H + 2 * 5


@pytest.mark.parametrize(
    ("default", "left"),
    [
        (TrialProgress(0, {}), 6 + 4 + 12),
        (TrialProgress(0, {1: 0.9}), 5 + 4 + 12),
        (TrialProgress(0, {1: 0.9}, "pruned"), 5 + 4 + 12),
        (TrialProgress(0, {}, "lost"), 5 + 4 + 12),
    ],
)
def test_the_default_trial_is_expected_to_do_as_others_do(default: TrialProgress, left: float) -> None:
    assert Rungs((1, 3, 9)).expected_epochs([default], 6) == left


def test_an_excused_default_trial_is_expected_to_come_to_its_next_rung() -> None:
    competitors = [TrialProgress(number, {1: 0.1, 3: 0.1}) for number in (1, 2)]
    competitors += [TrialProgress(number, {1: 0.9}, "pruned") for number in (3, 4, 5)]
    assert Rungs((1, 3, 9)).expected_epochs([TrialProgress(0, {1: 0.11, 2: 0.1}), *competitors], 6) == 1 + 12


def test_places_of_trials_dropped_before_are_free_when_the_study_grows() -> None:
    rule = Rungs((1, 3))
    old = [TrialProgress(number, {1: 0.1 * number}, "pruned") for number in range(3, 7)]
    best = [TrialProgress(number, {1: 0.01, 3: 0.01}, "finished") for number in range(1, 3)]
    new = [TrialProgress(number, {1: 0.5 + 0.1 * number}) for number in range(7, 13)]
    assert rule.verdict(7, [*best, *old, *new], 12) == "promote"
    assert rule.verdict(9, [*best, *old, *new], 12) == "prune"


LOOKED = [TrialProgress(number, {}, ranks={H: 0.1 * number}) for number in range(1, 7)]


@pytest.mark.parametrize(
    ("first", "second", "verdicts"),
    [
        # two wait in case that one of those who go on fails; nobody else does
        ((None, 0), (None, 0), "promote promote wait wait prune prune"),
        (("finished", 5), (None, 2), "- promote wait wait prune prune"),
        (("finished", 5), ("finished", 3), "- - prune prune prune prune"),
        # each that fails is replaced
        (("lost", 0), (None, 2), "- promote promote wait prune prune"),
        (("lost", 3), ("finished", 5), "- - promote wait prune prune"),
        (("lost", 0), ("lost", 1), "- - promote promote prune prune"),
    ],
)
def test_those_dropped_in_miniature_replace_those_that_fail(
    first: tuple[str | None, int], second: tuple[str | None, int], verdicts: str
) -> None:
    trials = [
        replace(one, end=end, losses={epoch: 0.1 for epoch in range(1, epochs + 1)})
        for one, (end, epochs) in zip(LOOKED, (first, second), strict=False)
    ] + LOOKED[2:]
    rule = Rungs((H, 5), (3.0, 1.0))
    for trial, verdict in zip(trials, verdicts.split(), strict=True):
        if trial.end is None and trial.epoch == H:
            assert rule.verdict(trial.number, trials, 6) == verdict


def test_replacements_are_expected() -> None:
    rule = Rungs((H, 5), (3.0, 1.0))
    lost, done = replace(LOOKED[0], end="lost"), replace(LOOKED[1], losses={5: 0.1}, end="finished")
    dropped = [replace(one, end="pruned") for one in LOOKED[4:]]
    assert rule.expected_epochs([lost, done, *LOOKED[2:4], *dropped], 6) == 5
    third = replace(LOOKED[2], losses={2: 0.1})
    assert rule.expected_epochs([lost, done, third, LOOKED[3], *dropped], 6) == 3
    assert rule.expected_epochs([lost, done, *(replace(one, end="pruned") for one in LOOKED[2:])], 6) == 0


def test_when_no_trial_is_left_to_replace_those_that_fail_the_search_ends() -> None:
    losses = {number: [0.1 * number] * 6 for number in range(1, 7)}
    given = climb(Rungs((H, 5), (3.0, 1.0)), losses, lost=set(losses), order=random.Random(0))
    assert given == {1: 2, 2: 2, 3: 2, 4: 2, 5: H, 6: H}


def test_the_sampler_learns_rungs_first_then_losses() -> None:
    rule = Rungs((1, 3))
    progress_list = [
        TrialProgress(1, {1: 0.1}, "pruned"),
        TrialProgress(2, {1: 0.3, 2: 0.3, 3: 0.2}, "finished"),
        TrialProgress(3, {1: 0.2}),
        TrialProgress(4, {}, "lost"),
        TrialProgress(5, {}),
    ]
    assert rule.ranking(progress_list) == [2, 1, 3, 4]


@pytest.mark.parametrize(
    ("losses", "ranking"),
    [
        # better than all at the end and at each rung: first
        ({1: 0.01, 3: 0.01, 9: 0.01}, [0, 1, 2, 3]),
        # worse than all who went on from the first rung: compared there, whatever came later
        ({1: 0.25, 3: 0.01, 9: 0.01}, [1, 2, 0, 3]),
        ({1: 0.9, 3: 0.9, 9: 0.01}, [1, 2, 3, 0]),
        # would have come to the second rung, not to the end
        ({1: 0.15, 3: 0.15, 9: 0.01}, [1, 0, 2, 3]),
    ],
)
def test_the_default_trial_is_ranked_at_the_rung_to_which_it_would_have_come(
    losses: dict[int, float], ranking: list[int]
) -> None:
    competitors = [
        TrialProgress(1, {1: 0.1, 3: 0.1, 9: 0.1}, "finished"),
        TrialProgress(2, {1: 0.2, 3: 0.2}, "pruned"),
        TrialProgress(3, {1: 0.3}, "pruned"),
    ]
    assert Rungs((1, 3, 9)).ranking([TrialProgress(0, losses, "finished"), *competitors]) == ranking


def test_a_default_trial_that_is_alone_is_ranked() -> None:
    assert Rungs((1, 3)).ranking([TrialProgress(0, {1: 0.5, 3: 0.4}, "finished")]) == [0]


def test_an_unknown_pruner_is_named_with_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'median'"):
        make_rule("mediam", 5, 100, lambda: None, load_plugins())  # type: ignore[arg-type, return-value]
    assert {*load_plugins().of_kind(Pruner)} >= {
        "rungs",
        "hyperband",
        "median",
        "none",
        "percentile",
        "successive-halving",
    }
