import logging

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import MeanHead
from foldsmith.models.fitted_arrays import read_arrays, write_arrays
from foldsmith.models.logistic_head import LogisticHead
from foldsmith.models.mlp_head import MLPHead
from foldsmith.models.number_heads import NumbersHead
from foldsmith.models.ridge_head import RidgeHead
from foldsmith.models.ridge_layer import ridge_layer
from foldsmith.models.svr_head import SVRHead
from foldsmith.models.trees_head import TreesHead

HEADS = [
    RidgeHead(),
    SVRHead(),
    TreesHead(n_trees=50),
    MLPHead(hidden=32, dropout=0.1, epochs=100),
    MeanHead((RidgeHead(), SVRHead())),
]
CLASS_HEADS = [
    LogisticHead(VALUES := (0.0, 1.0, 5.0)),
    TreesHead(n_trees=50, class_values=VALUES),
    MeanHead((LogisticHead(VALUES), TreesHead(n_trees=50, class_values=VALUES))),
]


def images(n=240, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 12)).astype(np.float32) * 5 + 3
    targets = features[:, 0] * 0.1 - features[:, 1] * 0.05 + rng.normal(scale=0.1, size=n)
    return features, targets.astype(np.float64), np.arange(n) // 2


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_a_head_learns_what_is_there_and_the_same_every_time(head):
    features, targets, groups = images()
    fitted = head.fit(features[:160], targets[:160], groups[:160], seed=3)
    prediction = fitted.predict(features[160:])
    assert prediction.shape == (80,)
    error = np.sqrt(np.mean((prediction - targets[160:]) ** 2))
    assert error < 0.6 * targets.std()
    again = head.fit(features[:160], targets[:160], groups[:160], seed=3).predict(features[160:])
    np.testing.assert_array_equal(prediction, again)


def test_ridge_chooses_by_leaving_one_out():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 50)).astype(np.float32)
    targets = rng.normal(size=60)
    # Of noise, the strongest of the strengths is the best.
    prediction = RidgeHead().fit(features, targets, np.arange(60), seed=0).predict(features)
    assert prediction.std() < 0.1 * targets.std()


def test_a_mean_of_heads_is_their_mean():
    features, targets, groups = images()
    heads = (RidgeHead(), TreesHead(n_trees=20))
    single = [head.fit(features, targets, groups, seed=3).predict(features) for head in heads]
    mean = MeanHead(heads).fit(features, targets, groups, seed=3).predict(features)
    np.testing.assert_allclose(mean, (single[0] + single[1]) / 2)
    with pytest.raises(ConfigError, match="at least one"):
        MeanHead(())


def test_strengths_must_be_positive():
    with pytest.raises(ConfigError, match="alphas"):
        RidgeHead(alphas=(0.0, 1.0))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_a_feature_that_hardly_varied_cannot_carry_a_image_away(head):
    features, targets, groups = images()
    quiet = np.random.default_rng(2).normal(scale=1e-3, size=(240, 1)).astype(np.float32)
    features = np.hstack([features, quiet])
    fitted = head.fit(features[:160], targets[:160], groups[:160], seed=3)
    features[160:, -1] = 4.0
    assert np.abs(fitted.predict(features[160:])).max() < 2 * np.abs(targets).max()


def test_a_ridge_layer_is_linear_in_the_features_as_they_are():
    features, targets, _ = images()
    weights, bias = ridge_layer(features[:160], targets[:160])
    assert weights.shape == (12,)
    error = np.sqrt(np.mean((features[160:] @ weights + bias - targets[160:]) ** 2))
    assert error < 0.3 * targets.std()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_the_unit_of_the_target_does_not_matter(head):
    features, targets, groups = images()
    predictions = [
        head.fit(features[:160], targets[:160] * unit, groups[:160], seed=3).predict(features[160:])
        / unit
        for unit in (1, 1000)
    ]
    np.testing.assert_allclose(*predictions, atol=0.02 * targets.std())


def test_all_features_may_be_asked_for_by_a_whole_number():
    features, targets, groups = images()
    whole, share = (
        TreesHead(n_trees=5, max_features=value).fit(features, targets, groups, 3).predict(features)
        for value in (1, 1.0)
    )
    np.testing.assert_array_equal(whole, share)
    with pytest.raises(ConfigError, match="max_features"):
        TreesHead(max_features=1.5)


@pytest.mark.parametrize("head", [*HEADS, *CLASS_HEADS], ids=lambda head: type(head).__name__)
def test_a_head_is_restored_from_a_file_to_the_last_bit(head, tmp_path):
    features, targets, groups = images()
    fitted = head.fit(features[:160], targets[:160], groups[:160], seed=3)
    assert np.std(fitted.predict(features[160:])) > 0
    write_arrays(tmp_path / "head.safetensors", fitted.arrays())
    restored = head.restore(read_arrays(tmp_path / "head.safetensors"))
    np.testing.assert_array_equal(fitted.predict(features[160:]), restored.predict(features[160:]))


def test_heads_say_what_scikit_learn_says():
    features, targets, groups = images()
    seen, unseen, wanted = features[:160], features[160:], targets[:160]
    inputs = [rows.astype(np.float64) for rows in (seen, unseen)]
    scaler = StandardScaler().fit(inputs[0])
    scaled = [np.clip(scaler.transform(rows), -5, 5) for rows in inputs]
    trees = ExtraTreesRegressor(30, min_samples_leaf=3, max_features=0.3, random_state=3)
    mean, scale = wanted.mean(), wanted.std()
    pairs = [
        (RidgeHead((10.0,)), Ridge(10.0).fit(scaled[0], wanted).predict(scaled[1])),
        (
            SVRHead((1.0,), (0.2,)),
            SVR(C=1, epsilon=0.2).fit(scaled[0], (wanted - mean) / scale).predict(scaled[1]) * scale
            + mean,
        ),
        (TreesHead(30), trees.fit(seen, wanted).predict(unseen)),
    ]
    for head, expected in pairs:
        found = head.fit(seen, wanted, groups[:160], seed=3).predict(unseen)
        np.testing.assert_allclose(found, expected, atol=1e-6 * scale, err_msg=str(head))


@pytest.mark.parametrize("head", CLASS_HEADS, ids=lambda head: type(head).__name__)
def test_a_head_of_classes_gives_their_probabilities(head):
    features, targets, groups = images()
    values = np.array(VALUES)
    # In no order: the middle of the range is the last class.
    classes = np.digitize(targets, np.quantile(targets, [0.33, 0.66]))
    wanted = values[np.array([0, 2, 1])[classes]]
    fitted = head.fit(features[:160], wanted[:160], groups[:160], seed=3)
    prediction = fitted.predict(features[160:])
    np.testing.assert_allclose(prediction.sum(axis=1), 1)
    assert (values[prediction.argmax(axis=1)] == wanted[160:]).mean() > 0.55
    again = head.fit(features[:160], wanted[:160], groups[:160], seed=3).predict(features[160:])
    np.testing.assert_array_equal(prediction, again)
    # A class that is not there to learn from has no probability; and one alone has all.
    without = wanted[:160] != 1
    fitted = head.fit(features[:160][without], wanted[:160][without], groups[:160][without], 0)
    assert (fitted.predict(features)[:, 1] == 0).all()
    alone = head.fit(features[:8], np.full(8, 5.0), groups[:8], 0)
    np.testing.assert_allclose(alone.predict(features), np.tile([0, 0, 1], (len(features), 1)))


def test_numbers_and_probabilities_have_no_mean():
    with pytest.raises(ConfigError, match="must all give numbers, probabilities"):
        MeanHead((RidgeHead(), LogisticHead((0.0, 1.0))))
    with pytest.raises(ConfigError, match="C: "):
        LogisticHead((0.0, 1.0), C=(0,))


def test_probabilities_are_those_of_scikit_learn():
    features, targets, groups = images()
    wanted = np.digitize(targets, np.quantile(targets, [0.33, 0.66])).astype(float)
    for values in ((0.0, 1.0, 2.0), (0.0, 1.0)):
        seen = wanted < len(values)
        rows, labels = features[seen].astype(np.float64), wanted[seen]
        scaled = np.clip(StandardScaler().fit_transform(rows), -5, 5)
        logistic = LogisticRegression(C=0.1, max_iter=1000).fit(scaled, labels)
        trees = ExtraTreesClassifier(30, min_samples_leaf=3, max_features=0.3, random_state=3)
        for head, expected in (
            (LogisticHead(values, C=(0.1,)), logistic.predict_proba(scaled)),
            (TreesHead(30, class_values=values), trees.fit(rows, labels).predict_proba(rows)),
        ):
            fitted = head.fit(features[seen], labels, groups[seen], seed=3)
            found = fitted.predict(features[seen])
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=str(head))


def test_a_ridge_regression_with_one_scale_does_not_enlarge_features_that_hardly_vary():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(60, 3))
    features = np.concatenate([signal, 1e-3 * rng.normal(size=(60, 80))], axis=1).astype(np.float32)
    targets, groups = signal.sum(axis=1), np.arange(60)
    train, held = slice(0, 30), slice(30, 60)

    def predicted(head, factor=1.0):
        fitted = head.fit(factor * features[train], targets[train], groups[train], 0)
        return fitted.predict(factor * features[held])

    common, each = RidgeHead(scaling="common"), RidgeHead()
    errors = [np.abs(predicted(head) - targets[held]).mean() for head in (common, each)]
    assert errors[0] < 0.05 < 0.5 < errors[1]
    # The unit of all features changes nothing.
    np.testing.assert_allclose(predicted(common, 100.0), predicted(common), rtol=1e-3, atol=1e-3)


def test_an_unknown_scaling_of_a_ridge_regression_is_refused():
    with pytest.raises(ConfigError, match="scaling: 'own' must be each or common"):
        RidgeHead(scaling="own")


def test_trees_of_thousands_of_classes_stay_small(caplog):
    rng, n_classes = np.random.default_rng(0), 3000
    targets = np.arange(n_classes).repeat(2).astype(float)
    features = (targets[:, None] + rng.normal(size=(len(targets), 2))).astype(np.float32)
    head = TreesHead(300, class_values=tuple(range(n_classes)))
    with caplog.at_level(logging.INFO):
        fitted = head.fit(features, targets, np.arange(len(targets)), 0)
    assert sum(array.nbytes for array in fitted.arrays().values()) < 600 * 2**20
    assert "with 3,000 classes more trees would take more than 512 MiB" in caplog.text
    found = fitted.predict(features[:40])
    assert found.shape == (40, n_classes) and found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    # Blocks of images change nothing.
    assert (found[30:31] == fitted.predict(features[30:31])).all()


def test_a_number_that_no_image_has_is_predicted_as_0():
    features, targets, groups = images(40)
    both = np.stack([targets, np.full(40, np.nan)], axis=1)
    found = NumbersHead(RidgeHead()).fit(features, both, groups, 0).predict(features)
    alone = RidgeHead().fit(features, targets, groups, 0).predict(features)
    np.testing.assert_array_equal(found, np.stack([alone, np.zeros(40)], axis=1))
