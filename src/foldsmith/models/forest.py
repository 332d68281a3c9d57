"""Grown decision trees as plain arrays, which can be written into a file and read anywhere."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.models.fitted_arrays import ArrayFields

Array = npt.NDArray[Any]

# Images evaluated at once, so that memory does not grow with their number.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Forest(ArrayFields):
    """Trees, one after another in the same arrays; each node is a row.

    Attributes:
        roots: Node at which each tree begins, int32, shape (n_trees,).
        feature: Feature that a node asks for, int32, shape (n_nodes,); 0 in a leaf.
        threshold: Up to which value an image goes left, float32 or float64, shape (n_nodes,).
        left: Where it goes then, int32, shape (n_nodes,); a leaf is its own successor.
        right: Where it goes else, int32, shape (n_nodes,).
        unknown_left: Whether a NaN feature goes left, shape (n_nodes,).
        value: Prediction of a leaf, float32 or float64, shape (n_nodes,), or (n_nodes, n_classes)
            or (n_nodes, n_labels).
    """

    roots: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    unknown_left: Array
    value: Array

    def predict(self, features: Array) -> npt.NDArray[np.float64]:
        """Return the prediction of each tree for each image.

        Args:
            features: Shape (n, n_features).

        Returns:
            Shape (n, n_trees), or (n, n_trees, n_classes) or (n, n_trees, n_labels).
        """
        found = np.empty((len(features), len(self.roots), *self.value.shape[1:]))
        for start in range(0, len(features), _ROWS_AT_ONCE):
            rows = features[start : start + _ROWS_AT_ONCE]
            number = np.arange(len(rows))[:, None]
            node = np.broadcast_to(self.roots, (len(rows), len(self.roots)))
            while True:
                asked = rows[number, self.feature[node]]
                goes_left = np.where(
                    np.isnan(asked), self.unknown_left[node], asked <= self.threshold[node]
                )
                following = np.where(goes_left, self.left[node], self.right[node])
                if np.array_equal(following, node):
                    break
                node = following
            found[start : start + len(rows)] = self.value[node]
        return found


def extra_trees(model: Any) -> Forest:
    """Return the trees of scikit-learn's ``ExtraTreesRegressor`` or ``ExtraTreesClassifier``.

    Leaves contain numbers, one for each output if there are several, or the shares of the model's
    classes, as float32.

    It compares features of float32 with thresholds of float64. Here a threshold is the highest
    float32 that is not above it, which sorts such features alike and takes half the room.
    """
    trees = [estimator.tree_ for estimator in model.estimators_]
    exact = np.concatenate([tree.threshold for tree in trees])
    threshold = exact.astype(np.float32)
    too_high = threshold > exact
    of_classes = hasattr(model, "classes_")
    # Shape (n_nodes, n_outputs, n_classes); numbers are one class.
    values = np.concatenate([tree.value for tree in trees]).astype(np.float32)
    values = values[:, 0] if of_classes else values[:, :, 0]
    if of_classes:
        values /= values.sum(axis=1, keepdims=True)
    elif values.shape[1] == 1:
        values = values[:, 0]
    threshold[too_high] = np.nextafter(threshold[too_high], np.float32(-np.inf))
    return _forest(
        sizes=[tree.node_count for tree in trees],
        feature=np.concatenate([tree.feature for tree in trees]),
        threshold=threshold,
        left=np.concatenate([tree.children_left for tree in trees]),
        right=np.concatenate([tree.children_right for tree in trees]),
        leaf=np.concatenate([tree.children_left < 0 for tree in trees]),
        unknown_left=np.zeros(len(exact), bool),
        value=values,
    )


def boosted_trees(model: Any) -> Forest:
    """Return the trees of scikit-learn's histogram boosting, in the order of its steps.

    Of K classes, every step has K trees, one after another. The trees are private to
    scikit-learn (version 1.5 to 1.9 looked at): whoever calls this compares predictions.
    """
    nodes = [tree.nodes for step in model._predictors for tree in step]
    joined = np.concatenate(nodes)
    return _forest(
        sizes=[len(tree) for tree in nodes],
        feature=joined["feature_idx"],
        threshold=joined["num_threshold"],
        left=joined["left"],
        right=joined["right"],
        leaf=joined["is_leaf"].astype(bool),
        unknown_left=joined["missing_go_to_left"].astype(bool),
        value=joined["value"],
    )


def _forest(
    sizes: list[int],
    feature: Array,
    threshold: Array,
    left: Array,
    right: Array,
    leaf: Array,
    unknown_left: Array,
    value: Array,
) -> Forest:
    """Join trees whose children are counted from each tree's own root."""
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    begin, itself = np.repeat(roots, sizes), np.arange(len(feature))
    return Forest(
        roots=roots.astype(np.int32),
        feature=np.where(leaf, 0, feature).astype(np.int32),
        threshold=threshold,
        left=np.where(leaf, itself, begin + left).astype(np.int32),
        right=np.where(leaf, itself, begin + right).astype(np.int32),
        unknown_left=unknown_left,
        value=value,
    )
