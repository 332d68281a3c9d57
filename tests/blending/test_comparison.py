import numpy as np
import pytest
from blend_data import alike, as_probabilities, goal, rows, unlike

from foldsmith.blending.base import FittedWeights, Rows
from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.blending.comparison import Candidate, compare, recommend
from foldsmith.blending.crossfit import cross_fitted
from foldsmith.blending.methods import create_blend
from foldsmith.config import EnsembleSettings
from foldsmith.tasks.metrics import metric_named, rmse

SETTINGS = EnsembleSettings(experiments=["a"])
WAYS = ("mean", "best", "box", "simplex", "nnls", "ridge", "greedy")


def compared(predictions, targets, ways=WAYS, metric="RMSE", groups=None):
    aim = goal(metric)
    blends = [create_blend(way, aim, SETTINGS, 0) for way in ways]
    n = len(targets)
    return compare(
        [Candidate(made.name, made, made) for made in blends],
        "mean",
        aim,
        rows(predictions),
        targets,
        folds=np.arange(n) % 4,
        groups=np.arange(n) if groups is None else groups,
        seed=0,
    )


def test_no_fold_is_blended_by_weights_that_have_seen_it():
    predictions, targets = alike(0, n_members=3)
    folds = np.arange(len(targets)) % 4
    leaking = predictions.copy()
    # In one fold the third member knows the target; elsewhere it is the worst.
    leaking[2] = np.clip(leaking[2] + 0.3, 0, 3)
    leaking[2, folds == 0] = targets[folds == 0]
    made = create_blend("best", goal(), SETTINGS, 0)
    assert made.fit(rows(leaking), targets).weights.tolist() == [0, 0, 1]
    blended = cross_fitted(made, rows(leaking), targets, folds)
    error = rmse(blended[folds == 0], targets[folds == 0])
    assert error in [rmse(member[folds == 0], targets[folds == 0]) for member in leaking[:2]]
    # The targets of the held-out fold change nothing of its own predictions.
    for way in (*WAYS, "stack"):
        made = create_blend(way, goal(), SETTINGS, 0)
        first = cross_fitted(made, rows(leaking), targets, folds)
        changed = np.where(folds == 0, 3 - targets, targets)
        second = cross_fitted(made, rows(leaking), changed, folds)
        np.testing.assert_array_equal(first[folds == 0], second[folds == 0])


def test_each_fold_is_blended_by_the_others():
    predictions, targets = unlike(0)
    folds = np.arange(len(targets)) % 3
    made = create_blend("simplex", goal(), SETTINGS, 0)
    blended = cross_fitted(made, rows(predictions), targets, folds)
    held = folds == 2
    fitted = made.fit(rows(predictions).take(~held), targets[~held])
    np.testing.assert_array_equal(blended[held], fitted.predict(rows(predictions).take(held)))


def test_groups_that_err_alike_make_an_interval_wider():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    targets = np.zeros(400)
    by_group = np.repeat(rng.normal(size=40), 10)
    metric = metric_named("RMSE")

    def width(numbers):
        low, high = interval(bootstrap(metric, {"a": by_group}, targets, numbers, 0)["a"])
        assert low < rmse(by_group, targets) < high
        return high - low

    assert width(groups) > 2 * width(np.arange(400))


@pytest.mark.parametrize("name", ["RMSE", "Accuracy", "QWK"])
def test_what_is_resampled_is_the_metric(name):
    predictions, targets = alike(0, n=150)
    metric = metric_named(name, (0.0, 1.0, 2.0, 3.0))
    groups = np.arange(150) // 3
    drawn = bootstrap(metric, {"a": predictions[0], "b": predictions[0]}, targets, groups, 5)
    # Paired: the same draws for both.
    np.testing.assert_array_equal(drawn["a"], drawn["b"])
    again = bootstrap(metric, {"a": predictions[0]}, targets, groups, 5)["a"]
    np.testing.assert_array_equal(drawn["a"], again)
    # The first draw by hand: whole groups.
    picked = np.random.default_rng(5).integers(0, 50, 50)
    by_hand = np.concatenate([np.flatnonzero(groups == group) for group in picked])
    expected = metric(predictions[0][by_hand], targets[by_hand])
    assert drawn["a"][0] == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["RMSE", "QWK"])
def test_a_real_gain_is_recommended(metric):
    found = compared(*unlike(0), metric=metric)
    name, why = recommend(found, "mean", goal(metric).metric)
    assert name != "mean" and "by more than noise" in why and why.startswith(f"submit {name}")
    by_name = {result.name: result for result in found}
    assert by_name[name].honest.gain == max(r.honest.gain for r in found)
    assert by_name[name].honest.gain > 0 and by_name[name].honest.beats_baseline
    # The mean gains nothing over itself.
    assert by_name["mean"].honest.gain_interval == (0, 0)
    assert isinstance(by_name["simplex"].fitted, FittedWeights)


def test_differences_that_are_noise_fall_back_to_the_mean():
    chosen = []
    for seed in range(8):
        found = compared(*alike(seed, n=300))
        in_sample = {result.name: result.in_sample for result in found}
        # In sample the optimised weights always look better ...
        assert in_sample["box"] < in_sample["mean"]
        name, why = recommend(found, "mean", goal().metric)
        chosen.append(name)
        assert name != "mean" or "may be noise" in why or "nothing else is better" in why
    # ... and out of fold they are no better.
    assert chosen.count("mean") >= 7


@pytest.mark.parametrize("metric", ["LogLoss", "AUC"])
def test_probabilities_are_compared_too(metric):
    predictions, targets = unlike(0, n=200)
    found = compared(as_probabilities(predictions), targets, ("mean", "best", "simplex"), metric)
    scores = {result.name: result.honest for result in found}
    assert scores["best"].gain > 0 and scores["simplex"].gain > 0
    better = scores["best"].score > scores["mean"].score
    assert better == (metric == "AUC")


def test_what_has_no_honest_score_is_not_recommended():
    predictions, targets = unlike(0)
    mean = create_blend("mean", goal(), SETTINGS, 0)
    box = create_blend("box", goal(), SETTINGS, 0)
    n = len(targets)
    found = compare(
        [Candidate("mean", mean, mean), Candidate("box", box, None)],
        *("mean", goal(), Rows(predictions, np.empty((n, 0))), targets),
        *(np.arange(n) % 4, np.arange(n), 0),
    )
    assert found[1].honest is None and found[1].in_sample < found[0].in_sample
    assert recommend(found, "mean", goal().metric)[0] == "mean"
