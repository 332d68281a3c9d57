"""A head on frozen features that gives a number or probabilities of classes by trees."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import classes_of
from foldsmith.models.fitted_arrays import Arrays
from foldsmith.models.fitted_heads import Features, FittedTrees, Targets
from foldsmith.models.forest import Forest, extra_trees

logger = logging.getLogger(__name__)

# Most shares of classes in the leaves of all trees, float32: 512 MiB.
_MOST_SHARES = 2**27


@dataclass(frozen=True)
class TreesHead:
    """Extremely randomised trees (Geurts et al. 2006), of numbers or of classes.

    Attributes:
        n_trees: Number of trees; with thousands of classes no more than fit into 512 MiB, since
            each leaf has a share of every class.
        min_leaf: Fewest images of a leaf.
        max_features: Share of the features that a split chooses from, 0..1.
        class_values: Target value of each class, whose probabilities it gives then; none for a
            number.
    """

    n_trees: int = 300
    min_leaf: int = 3
    max_features: float = 0.3
    class_values: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.n_trees < 1 or self.min_leaf < 1 or not 0 < self.max_features <= 1:
            raise ConfigError(
                "TreesHead: n_trees and min_leaf must be at least 1, max_features in 0..1, not 0"
            )

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedTrees:
        """Grow the trees from the seed."""
        from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        n_trees = self.n_trees
        if self.class_values:
            # A leaf has min_leaf images or more, and a tree at most as many other nodes.
            size = 2 * max(1, len(targets) // self.min_leaf) * len(self.class_values)
            n_trees = max(1, min(n_trees, _MOST_SHARES // size))
        if n_trees < self.n_trees:
            logger.info(
                f"note: TreesHead: {n_trees} trees, not {self.n_trees}: with "
                f"{len(self.class_values):,} classes more trees would take more than 512 MiB"
            )
        model = (ExtraTreesClassifier if self.class_values else ExtraTreesRegressor)(
            n_trees,
            min_samples_leaf=self.min_leaf,
            # The whole number 1 is one feature for scikit-learn.
            max_features=float(self.max_features),
            random_state=seed,
            n_jobs=-1,
        )
        if not self.class_values:
            return FittedTrees(extra_trees(model.fit(features, targets, weights)))
        with warnings.catch_warnings():
            # With few images per class, scikit-learn warns that the classes may be numbers.
            warnings.filterwarnings("ignore", message="The number of unique classes")
            model.fit(features, classes_of(targets, self.class_values), weights)
        forest = extra_trees(model)
        shares = np.zeros((len(forest.value), len(self.class_values)), np.float32)
        shares[:, model.classes_] = forest.value
        return FittedTrees(replace(forest, value=shares))

    def restore(self, arrays: Arrays) -> FittedTrees:
        """Return the trees."""
        return FittedTrees(Forest(**arrays))
