import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from foldsmith.models.forest import extra_trees


def test_a_image_on_a_threshold_goes_where_scikit_learn_sends_it():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 1)).astype(np.float32)
    model = ExtraTreesRegressor(20, random_state=0).fit(features, rng.normal(size=200))
    exact = np.concatenate([tree.tree_.threshold for tree in model.estimators_])
    nearest = exact.astype(np.float32)
    # Both sides: float32 that lie just above and just below thresholds of float64.
    assert (nearest > exact).any() and (nearest < exact).any()
    found = extra_trees(model).predict(nearest[:, None]).mean(axis=1)
    np.testing.assert_allclose(found, model.predict(nearest[:, None]), atol=1e-6)
