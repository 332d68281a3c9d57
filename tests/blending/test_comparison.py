import numpy as np
import pytest
from blend_data import alike, as_probabilities, goal, rows, unlike

from foldsmith.blending.base import Constant, FittedWeights, Rows
from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.blending.comparison import (
    Candidate,
    ComparedBlend,
    CrossFittedScore,
    compare,
    recommend,
)
from foldsmith.blending.crossfit import cross_fitted
from foldsmith.blending.methods import COMPLEXITY, average_blend, create_blend, restore_blend
from foldsmith.config import EnsembleSettings
from foldsmith.targets.metrics import metric_named, rmse

SETTINGS = EnsembleSettings(experiments=["a"])
WAYS = ("mean", "best", "box", "simplex", "nnls", "ridge", "greedy")


def compared(predictions, targets, ways=WAYS, metric="RMSE", groups=None):
    aim = goal(metric)
    blends = [create_blend(way, aim, SETTINGS, 0) for way in ways]
    n = len(targets)
    return compare(
        [Candidate(made.name, made, made, COMPLEXITY[made.name]) for made in blends],
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
    found = compared(*unlike(0, bad=0.9), metric=metric)
    name, why = recommend(found, "mean", goal(metric).metric)
    assert name != "mean" and why.startswith(f"submit {name}: ") and "best out of fold" in why
    by_name = {result.name: result for result in found}
    best = max(r.honest.gain for r in found)
    # One good member is simpler than weights that give it nearly all; that weights also shrink
    # predictions towards the mean target is a gain of its own, in squared error.
    assert name == ("box" if metric == "RMSE" else "best")
    assert by_name[name].honest.gain == pytest.approx(best, abs=0.01)
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
        assert name != "mean" or "may be noise" in why or "nothing else" in why
    # ... and out of fold they are no better.
    assert chosen.count("mean") >= 7


@pytest.mark.parametrize("metric", ["LogLoss", "AUC"])
def test_probabilities_are_compared_too(metric):
    predictions, targets = unlike(0, n=200, bad=0.9)
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
        [Candidate("mean", mean, mean, 0), Candidate("box", box, None, 4)],
        *("mean", goal(), Rows(predictions, np.empty((n, 0))), targets),
        *(np.arange(n) % 4, np.arange(n), 0),
    )
    assert found[1].honest is None and found[1].in_sample < found[0].in_sample
    assert recommend(found, "mean", goal().metric)[0] == "mean"


def with_scores(*samples, complexities):
    """Candidates whose gains over the first one are given, resample by resample."""
    found = []
    for k, (values, complexity) in enumerate(zip(samples, complexities, strict=True)):
        gains = np.asarray(samples[0]) - values
        low, high = interval(gains)
        honest = CrossFittedScore(float(np.mean(values)), (0, 0), float(gains.mean()), (low, high))
        name = "mean" if k == 0 else f"blend{k}"
        found.append(ComparedBlend(name, None, 0.0, honest, None, np.asarray(values), complexity))
    return found


def test_a_blend_that_is_clearly_worse_than_others_is_not_submitted():
    """The top blend's gain touches zero, but six others are better than the mean beyond noise."""
    rng = np.random.default_rng(0)
    mean = 12.28 + 0.3 * rng.normal(size=1000)
    six = [mean - 1.43 + 0.01 * k + 0.2 * rng.normal(size=1000) for k in range(6)]
    top = mean - 1.5 + 1.0 * rng.normal(size=1000)
    found = with_scores(mean, top, *six, complexities=[0, 20, 10, 13, 13, 14, 14, 14])
    by_name = {c.name: c for c in found}
    assert not by_name["blend1"].honest.beats_baseline and by_name["blend2"].honest.beats_baseline
    name, why = recommend(found, "mean", goal().metric)
    assert name == "blend2" and "simplest" in why and "blend1" in why
    # Without the six, the gain of the top may be noise only if it is.
    assert recommend(found[:2], "mean", goal().metric)[0] == "blend1"
    wide = [mean, top + 1.0]
    assert recommend(with_scores(*wide, complexities=[0, 20]), "mean", goal().metric)[0] == "mean"


@pytest.mark.parametrize("seed", range(5))
def test_what_is_recommended_is_beaten_by_nothing_and_nothing_simpler_is_unbeaten(seed):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=300)
    samples = [
        rng.uniform(9, 11) + shared + rng.uniform(0.1, 1) * rng.normal(size=300) for _ in range(9)
    ]
    found = with_scores(*samples, complexities=[0, *rng.integers(1, 5, 8).tolist()])
    chosen = {c.name: c for c in found}[recommend(found, "mean", goal().metric)[0]]

    def beaten(one):
        return any(np.quantile(one.resampled - other.resampled, 0.16) > 0 for other in found)

    assert not beaten(chosen)
    assert all(beaten(one) for one in found if one.complexity < chosen.complexity)


def test_a_member_worse_than_the_constant_gets_no_say():
    predictions, targets = alike(0, n_members=3)
    terrible = np.vstack([predictions, 3 - predictions[:1]])
    aim = goal()
    assert aim.useful(terrible, targets).tolist() == [True, True, True, False]
    for way in (*WAYS, "stack"):
        made = create_blend(way, aim, SETTINGS, 0)
        alone = made.fit(rows(predictions), targets)
        fitted = made.fit(rows(terrible), targets)
        assert not fitted.uses(4)[3]
        again = restore_blend(fitted.arrays(), aim)
        np.testing.assert_array_equal(again.uses(4), fitted.uses(4))
        for one in (fitted, again):
            said = one.predict(rows(terrible))
            np.testing.assert_allclose(said, alone.predict(rows(predictions)), atol=1e-12)
    # The average of members that are all worse keeps them all: nothing else is left.
    average = average_blend("avg", aim, [3]).fit(rows(terrible), targets)
    assert average.weights.tolist() == [0, 0, 0, 1]


def test_who_gets_a_say_is_decided_without_the_fold_that_judges_it():
    predictions, targets = alike(0, n_members=3)
    folds = np.arange(len(targets)) % 4
    held = folds == 0
    # Good in three folds; in the last so bad that it is worse than the constant in all.
    odd = predictions.copy()
    odd[2, held] = 40.0
    assert goal().useful(odd, targets).tolist() == [True, True, False]
    blended = cross_fitted(create_blend("mean", goal(), SETTINGS, 0), rows(odd), targets, folds)
    with_all = np.clip(odd[:, held].mean(axis=0), 0, 3)
    np.testing.assert_allclose(blended[held], with_all)
    without = odd[:2, ~held].mean(axis=0)
    np.testing.assert_allclose(blended[~held], np.clip(without, 0, 3))


@pytest.mark.parametrize("name", ["RMSE", "MAE", "Accuracy", "QWK", "LogLoss", "AUC"])
def test_the_constant_is_the_best_of_its_kind(name):
    targets = np.repeat([0.0, 1.0, 2.0, 3.0], [10, 40, 5, 45])
    aim = goal(name)
    constant = aim.constant(targets)
    score = aim.constant_score(targets)
    known = {"Accuracy": 0.45, "QWK": 0.0, "AUC": 0.5, "MAE": np.abs(targets - 2).mean()}
    known |= {"RMSE": targets.std()}
    if name == "LogLoss":
        share = np.array([0.1, 0.4, 0.05, 0.45])
        np.testing.assert_allclose(constant, share)
        known["LogLoss"] = -(share * np.log(share)).sum()
    assert score == pytest.approx(known[name])
    # It has arrays, and predicts the same for every row.
    fitted = Constant(aim).fit(rows(np.zeros((1, 7))), targets)
    again = restore_blend(fitted.arrays(), aim)
    said = again.predict(rows(np.zeros((1, 7))))
    np.testing.assert_array_equal(said, np.broadcast_to(constant, (7, *constant.shape)))
