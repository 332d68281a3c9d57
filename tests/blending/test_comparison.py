import numpy as np
import pytest
from blend_data import alike, as_probabilities, goal, rows, unlike

from foldsmith.blending.averaging import FittedMeanOfBlends
from foldsmith.blending.base import Constant, FittedConstant, FittedOnSome, FittedWeights, Rows
from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.blending.comparison import (
    MEAN_OF_BEST,
    Candidate,
    ComparedBlend,
    CrossFittedScore,
    compare,
    recommend,
    within_noise,
)
from foldsmith.blending.crossfit import cross_fitted
from foldsmith.blending.methods import COMPLEXITY, average_blend, create_blend, restore_blend
from foldsmith.config import EnsembleSettings
from foldsmith.targets.metrics import metric_named
from foldsmith.targets.scores_of_values import rmse

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
    # One good member is as good as weights that give it nearly all; that weights also shrink
    # predictions towards the mean target is a gain of its own, in squared error.
    parts = by_name[name].parts or (name,)
    assert ("box" if metric == "RMSE" else "best") in parts and "mean" not in parts
    assert by_name[name].honest.gain == pytest.approx(best, abs=0.01)
    assert by_name[name].honest.gain > 0 and by_name[name].honest.beats_baseline
    # The mean gains nothing over itself.
    assert by_name["mean"].honest.gain_interval == (0, 0)
    assert isinstance(by_name["simplex"].fitted, FittedWeights)


def test_differences_that_are_noise_keep_the_mean():
    for seed in range(8):
        found = compared(*alike(seed, n=300))
        by_name = {result.name: result for result in found}
        # In sample the optimised weights always look better ...
        assert by_name["box"].in_sample < by_name["mean"].in_sample
        name, why = recommend(found, "mean", goal().metric)
        # ... and out of fold the plain mean is as good.
        parts = by_name[name].parts or (name,)
        assert "mean" in parts and name in why
        assert abs(by_name[name].honest.gain) < 0.01


def test_the_mean_of_the_best_is_a_blend_like_others():
    predictions, targets = alike(0, n=300)
    found = {result.name: result for result in compared(predictions, targets)}
    mean = found.pop(MEAN_OF_BEST)
    assert len(mean.parts) > 1 and set(mean.parts) == {
        c.name for c in within_noise(list(found.values()), goal().metric)
    }
    parts = [found[name] for name in mean.parts]
    out_of_fold = np.mean([part.cross_fitted for part in parts], axis=0)
    np.testing.assert_array_equal(mean.cross_fitted, out_of_fold)
    assert mean.honest.score == rmse(out_of_fold, targets)
    assert mean.honest.gain == pytest.approx(found["mean"].honest.score - mean.honest.score)
    low, high = mean.honest.gain_interval
    assert low <= mean.honest.gain <= high
    # Errors of which none is above the mean of their squares.
    assert mean.honest.score**2 <= np.mean([part.honest.score**2 for part in parts])
    blended = np.mean([part.fitted.predict(rows(predictions)) for part in parts], axis=0)
    restored = restore_blend(mean.fitted.arrays(), goal())
    for one in (mean.fitted, restored):
        np.testing.assert_allclose(one.predict(rows(predictions)), blended, atol=1e-12)


def test_the_mean_of_blends_keeps_the_members_that_one_of_them_uses():
    predictions, _ = alike(0, n_members=5, n=60)
    first = FittedWeights(np.array([0.5, 0, 0, 0.5, 0]), (0.0, 3.0))
    stack_like = FittedOnSome(
        FittedWeights(np.array([0.2, 0.7]), (0.0, 3.0), 1.0), np.isin(np.arange(5), [1, 3])
    )
    both = FittedMeanOfBlends((first, stack_like, FittedConstant(np.array(1.5))))
    used = both.uses(5)
    assert used.tolist() == [True, True, False, True, False] and not both.with_facts
    expected = both.predict(rows(predictions))
    narrowed = both.only(used)
    np.testing.assert_allclose(narrowed.predict(rows(predictions[used])), expected, atol=1e-12)
    restored = restore_blend(narrowed.arrays(), goal())
    np.testing.assert_allclose(restored.predict(rows(predictions[used])), expected, atol=1e-12)
    among = both.among(np.array([True] * 5 + [False]))
    with_another = rows(np.vstack([predictions, predictions[:1] * 0]))
    np.testing.assert_allclose(among.predict(with_another), expected, atol=1e-12)


def test_the_same_predictions_count_once():
    predictions, targets = alike(0, n_members=1)
    found = compared(predictions, targets, ("mean", "best", "simplex", "greedy"))
    assert [result.name for result in found] == ["mean", "best", "simplex", "greedy"]
    assert recommend(found, "mean", goal().metric)[0] == "mean"


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


def names_within_noise(found):
    return [c.name for c in within_noise(found, goal().metric)]


def test_a_blend_that_is_clearly_worse_than_others_is_left_out():
    rng = np.random.default_rng(0)
    mean = 12.28 + 0.3 * rng.normal(size=1000)
    six = [mean - 1.43 + 0.01 * k + 0.2 * rng.normal(size=1000) for k in range(6)]
    top = mean - 1.5 + 1.0 * rng.normal(size=1000)
    found = with_scores(mean, top, *six, complexities=[0, 20, 10, 13, 13, 14, 14, 14])
    # The top one is within noise of six others, and they are simpler.
    assert names_within_noise(found) == [f"blend{k}" for k in range(1, 8)]
    # A more complex blend than the best has to be the best.
    simple = with_scores(mean, top, *six, complexities=[0, 5, 3, 13, 13, 14, 14, 14])
    assert names_within_noise(simple) == ["blend1", "blend2"]
    assert names_within_noise(found[:2]) == ["blend1"]
    assert recommend(found[:2], "mean", goal().metric)[0] == "blend1"
    wide = with_scores(mean, top + 1.0, complexities=[0, 20])
    assert names_within_noise(wide) == ["blend1", "mean"]


@pytest.mark.parametrize(("errors", "within"), [(0.9, ["mean"]), (1.1, [])])
def test_noise_is_one_standard_error(errors, within):
    drawn = np.random.default_rng(0).normal(size=20_000)
    best = np.full_like(drawn, 9.0)
    found = with_scores(best + errors + drawn - drawn.mean(), best, complexities=[0, 1])
    assert names_within_noise(found) == ["blend1", *within]


@pytest.mark.parametrize("seed", range(5))
def test_simpler_blends_that_the_best_does_not_beat_are_within_noise(seed):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=300)
    samples = [
        rng.uniform(9, 11) + shared + rng.uniform(0.1, 1) * rng.normal(size=300) for _ in range(9)
    ]
    found = with_scores(*samples, complexities=[0, *rng.integers(1, 5, 8).tolist()])
    best = max(found, key=lambda one: one.honest.gain)
    kept = names_within_noise(found)
    assert kept[0] == best.name
    for one in found:
        beaten = np.quantile(one.resampled - best.resampled, 0.16) > 0
        expected = one is best or (one.complexity <= best.complexity and not beaten)
        assert (one.name in kept) == expected


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
