"""The interface of blends: fitted on out-of-fold predictions, applied to other rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from foldsmith.blending.weights import ALL_TOGETHER, Bound, blend
from foldsmith.models.fitted_arrays import Arrays, prefixed
from foldsmith.project import ProjectFolder
from foldsmith.project.target_forms import TargetForm
from foldsmith.targets.metrics import Metric
from foldsmith.targets.row_means import column_means

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Quantiles of the targets that are tried as the constant: one is the best by a pinball loss.
_QUANTILES = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class Rows:
    """Predictions of the members for some images.

    Attributes:
        predictions: Point predictions, shape (n_members, n), of several numbers (n_members, n,
            n_targets), or, where the metric needs them, class probabilities, shape (n_members, n,
            n_classes).
        features: Measurements of each image, shape (n, n_features), NaN where unknown.
        weights: Weight of each image in the metric, for a fit, shape (n,); None for 1 each.
    """

    predictions: Array
    features: Array
    weights: Array | None = None

    def take(self, rows: Mask) -> "Rows":
        """Return some of the rows; the mask has shape (n,)."""
        weights = None if self.weights is None else self.weights[rows]
        return Rows(self.predictions[:, rows], self.features[rows], weights)

    def of_members(self, members: Mask) -> "Rows":
        """Return all rows of some members; the mask has shape (n_members,)."""
        return replace(self, predictions=self.predictions[members])


@dataclass(frozen=True)
class Goal:
    """Objective of a blend: the metric, and the form of the target.

    Attributes:
        metric: The metric.
        form: Form of the target: its range, classes or labels.
        raw: Let weights act on predictions as they are, not on their distances from the mean
            target (``globals/target_scale: none``): with weights that do not sum to 1, shifted
            targets then give other predictions.
    """

    metric: Metric
    form: TargetForm
    raw: bool = False

    @classmethod
    def of_project(cls, project: ProjectFolder, metric: Metric | None = None) -> "Goal":
        """Return the goal of a project.

        Args:
            project: The project.
            metric: Another metric than the project's.
        """
        return cls(metric or project.metric, project.form)

    def scale_of(self, targets: Array, weights: Array | None = None) -> tuple[Bound, Bound]:
        """Return the target that a blend counts from, and the difference that it counts as 1.

        Args:
            targets: Targets of the rows to fit, shape (n,), or (n, n_targets).
            weights: Weight of each row in the metric, shape (n,); None for 1 each.

        Returns:
            Their mean and standard deviation, which is 0 if all are equal; 0 and 1 for
            probabilities, and for ``raw``. For several numbers they are arrays.
        """
        if self.metric.takes_probabilities or (self.raw and targets.ndim == 1):
            return 0.0, 1.0
        if targets.ndim == 2:
            scales = [self.scale_of(*known) for known in _known_columns(targets, weights)]
            origins, units = np.asarray(scales, dtype=np.float64).T
            return origins, units
        if targets.min() == targets.max():
            return float(targets[0]), 0.0
        if weights is not None:
            mean = np.average(targets, weights=weights)
            return float(mean), float(np.sqrt(np.average((targets - mean) ** 2, weights=weights)))
        return float(targets.mean()), float(targets.std())

    @property
    def bounds(self) -> tuple[Bound, Bound]:
        """Lowest and highest value that a blend may have; for several numbers, those of each."""
        return (0.0, 1.0) if self.metric.takes_probabilities else self.form.bounds

    def entries(
        self, predictions: Array, targets: Array, weights: Array | None = None
    ) -> tuple[Array, Array, tuple[Any, Any]]:
        """Return predictions, ideal predictions and bounds as least squares take them.

        In units that do not depend on those of the target, as are the tolerances of the solvers.
        For several numbers, each target that is present is a row, scaled by the square root of its
        weight; for several class targets, each class of a target that is present. So is each row by
        its own weight.

        Args:
            predictions: Shape (n_members, n, ...).
            targets: Shape (n,), or (n, n_targets).
            weights: Weight of each row in the metric, shape (n,); None for 1 each.

        Returns:
            Shapes (n_members, n_rows) and (n_rows,), and the lowest and highest ideal prediction:
            numbers, or of each row its own, shape (n_rows,).
        """
        origin, unit = self.scale_of(targets, weights)
        of_rows = None if weights is None else np.sqrt(weights)
        ideal, of_outputs = self.encoded(targets), self.form.output_weights
        if of_outputs is None:
            flat = (predictions.reshape(len(predictions), -1) - origin) / unit
            low, high = ((bound - origin) / unit for bound in self.bounds)
            wanted = (ideal.ravel() - origin) / unit
            if of_rows is None:
                return flat, wanted, (low, high)
            each = np.repeat(of_rows, len(wanted) // len(of_rows))
            return flat * each, wanted * each, (low * each, high * each)
        roots = np.sqrt(of_outputs / of_outputs.mean())
        # A target that is the same for all images is predicted as it is.
        factor = np.divide(roots, unit, out=np.zeros_like(roots), where=np.asarray(unit) != 0)
        if of_rows is not None:
            factor = of_rows[:, None] * factor
        seen = ~np.isnan(ideal)
        low, high = (
            np.broadcast_to((bound - origin) * factor, ideal.shape)[seen] for bound in self.bounds
        )
        apart = (predictions - origin) * factor
        return apart[:, seen], ((ideal - origin) * factor)[seen], (low, high)

    def mean(self, targets: Array, weights: Array | None = None) -> Array:
        """Return the mean ideal prediction, shape () or (n_outputs,), missing targets left out."""
        ideal = self.encoded(targets)
        if self.form.output_weights is not None:
            return column_means(ideal, weights)
        mean: Array = ideal.mean(axis=0)
        return mean if weights is None else np.average(ideal, axis=0, weights=weights)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes or labels."""
        return self.form.labels

    def encoded(self, targets: Array) -> Array:
        """Return ideal predictions: targets, shape (n,), or (n, n_classes) of 0 and 1."""
        if not self.metric.takes_probabilities:
            return targets
        return self.form.encoded(targets)

    def constant(self, targets: Array, weights: Array | None = None) -> Array:
        """Return the constant that a member has to beat.

        Args:
            targets: Shape (n,).
            weights: Weight of each row in the metric, shape (n,); None for 1 each.

        Returns:
            Frequencies of classes or labels, shape (n_classes,), for a metric of probabilities; of
            several numbers one for each target, shape (n_targets,), by the metric of a column;
            otherwise the best by the metric of mean, median, most frequent target and some
            quantiles of the targets, shape ().
        """
        if self.metric.takes_probabilities:
            return self.mean(targets, weights)
        if self.metric.of_numbers:
            column = replace(self, metric=self.metric.for_column())
            return np.stack([column.constant(*each) for each in _known_columns(targets, weights)])
        values, place = np.unique(targets, return_inverse=True)
        counts = np.bincount(place, weights)
        tried = [float(self.mean(targets, weights)), np.median(targets), values[counts.argmax()]]
        # The mean has the lowest squared error.
        if not self.metric.least_squares:
            tried += [*np.quantile(targets, _QUANTILES)]
        if weights is not None and not self.metric.least_squares:
            shares = np.cumsum(counts) / counts.sum()
            tried += [*values[np.searchsorted(shares, (0.5, *_QUANTILES))]]
        found = np.array(tried)
        scores = [self.metric(np.full(len(targets), value), targets, weights) for value in found]
        best: Array = found[self.metric.best(scores)]
        return best

    def constant_score(self, targets: Array, weights: Array | None = None) -> float:
        """Return the metric of :meth:`constant`, on the rows that it was taken from.

        It is a little too good, by one number fitted to n rows: no member that beats it is worse
        than a constant.
        """
        constant = self.constant(targets, weights)
        everywhere = np.broadcast_to(constant, (len(targets), *constant.shape))
        return self.metric(everywhere, targets, weights)

    def useful(self, predictions: Array, targets: Array, weights: Array | None = None) -> Mask:
        """Return which members are no worse than the constant, shape (n_members,).

        Labels are decided by thresholds that are not fitted yet; until then the AUC judges them.

        Args:
            predictions: Out of fold, shape (n_members, n) or (n_members, n, n_classes).
            targets: Shape (n,).
            weights: Weight of each row in the metric, shape (n,); None for 1 each.
        """
        judge = self.form.screened_by(self.metric)
        constant = replace(self, metric=judge).constant_score(targets, weights)
        gains = [judge.gain(judge(one, targets, weights), constant) for one in predictions]
        useful: Mask = np.asarray(gains) >= 0
        return useful

    def points(self, predictions: Array) -> Array:
        """Return point predictions: of probabilities the expected class value, shape (n,).

        Of classes without an order that is the value of the most probable one; of labels their
        probabilities, shape (n, n_labels).
        """
        if not self.metric.takes_probabilities:
            return predictions
        return self.form.points(predictions)


def _known_columns(targets: Array, weights: Array | None) -> Iterator[tuple[Array, Array | None]]:
    """Yield the targets of each column that are not missing, and their weights; 0 without any."""
    for column in targets.T:
        seen = ~np.isnan(column)
        if weights is not None:
            seen &= weights > 0
        if not seen.any():
            yield np.zeros(1), None
        else:
            yield column[seen], None if weights is None else weights[seen]


class FittedBlend(Protocol):
    """A blend after fitting."""

    @property
    def with_facts(self) -> bool:
        """Whether it needs the facts of each image beside the members' predictions."""

    def uses(self, n_members: int) -> Mask:
        """Return the members whose predictions can change its own, shape (n_members,)."""

    def among(self, members: Mask) -> "FittedBlend":
        """Return it for rows of more members; those outside the mask get no say.

        Args:
            members: The members that it was fitted on, shape (n_members,).
        """

    def only(self, used: Mask) -> "FittedBlend":
        """Return it for rows of the members alone that it uses.

        Args:
            used: :meth:`uses`, shape (n_members,), with at least one.
        """

    def predict(self, rows: Rows) -> Array:
        """Return the blended predictions, shape (n,) or (n, n_classes)."""

    def arrays(self) -> Arrays:
        """Return its fitted arrays, for :func:`~foldsmith.blending.methods.restore_blend`."""


class Blend(Protocol):
    """A way to make one prediction of several."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def bends(self) -> bool:
        """It bends the members' predictions by itself, so that a calibration adds nothing."""

    def fit(self, rows: Rows, targets: Array) -> FittedBlend:
        """Learn from rows and their targets, shape (n,)."""


@dataclass(frozen=True)
class FittedWeights:
    """A weighted sum of the members' distances from a number, on top of that number.

    Attributes:
        weights: Shape (n_members,).
        bounds: The sum is clipped to them.
        origin: The number, of several numbers one each: the mean target, so that weights which
            sum to less than 1 shrink predictions towards it; a shift of all targets is one of all
            predictions.
        sum_to_1: Places of the probabilities that are scaled so that they sum to 1.
    """

    weights: Array
    bounds: tuple[Bound, Bound]
    origin: Bound = 0.0
    sum_to_1: Sequence[slice] = ALL_TOGETHER

    @property
    def with_facts(self) -> bool:
        """No facts are needed."""
        return False

    def uses(self, n_members: int) -> Mask:
        """Return the members whose weight is not 0."""
        used: Mask = self.weights != 0
        return used

    def among(self, members: Mask) -> "FittedWeights":
        """Return the weights with 0 for all other members."""
        weights = np.zeros(len(members))
        weights[members] = self.weights
        return replace(self, weights=weights)

    def only(self, used: Mask) -> "FittedWeights":
        """Return the weights that are not 0."""
        return replace(self, weights=self.weights[used])

    def predict(self, rows: Rows) -> Array:
        """Return the clipped sums."""
        return blend(rows.predictions, self.weights, self.bounds, self.origin, self.sum_to_1)

    def arrays(self) -> Arrays:
        """Return the weights and the number."""
        return {"weights": self.weights, "origin": np.array(self.origin)}


@dataclass(frozen=True)
class WeightedBlend:
    """A weighted sum of the members.

    Attributes:
        name: Its name.
        goal: Objective of the blend.
        choose: From (rows, targets) to weights, shape (n_members,).
        fixed: The weights do not depend on the targets, and sum to 1.
    """

    name: str
    goal: Goal
    choose: Callable[[Rows, Array], Array]
    fixed: bool = False

    bends = False

    def fit(self, rows: Rows, targets: Array) -> FittedWeights:
        """Choose the weights; equal targets are predicted as they are."""
        origin, unit = (0.0, 1.0) if self.fixed else self.goal.scale_of(targets, rows.weights)
        weights = np.zeros(len(rows.predictions))
        if np.any(unit):
            weights = self.choose(rows, targets)
        return FittedWeights(weights, self.goal.bounds, origin, self.goal.form.sum_to_1)


@dataclass(frozen=True)
class ScreenedBlend:
    """A blend in which members that are worse than the constant get no say.

    Which ones they are is decided on the rows that it is fitted on: where it is cross-fitted, the
    held-out fold plays no part in it. If all members are worse than the constant, all are kept.

    Attributes:
        blend: The blend of the remaining members.
        goal: Objective of the blend.
        members: Positions of its members; None for all.
    """

    blend: Blend
    goal: Goal
    members: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the blend."""
        return self.blend.name

    @property
    def bends(self) -> bool:
        """As the blend."""
        return self.blend.bends

    def fit(self, rows: Rows, targets: Array) -> FittedBlend:
        """Leave out the worse members, and fit the blend on the others."""
        n_members = len(rows.predictions)
        among = np.isin(
            np.arange(n_members), range(n_members) if self.members is None else self.members
        )
        useful = among & self.goal.useful(rows.predictions, targets, rows.weights)
        kept = useful if useful.any() else among
        return self.blend.fit(rows.of_members(kept), targets).among(kept)


@dataclass(frozen=True)
class FittedOnSome:
    """A fitted blend of some of the members.

    Attributes:
        blend: The blend.
        members: Which members it is made of, shape (n_members,).
    """

    blend: FittedBlend
    members: Mask

    @property
    def with_facts(self) -> bool:
        """As the blend."""
        return self.blend.with_facts

    def uses(self, n_members: int) -> Mask:
        """Return the members that the blend uses, among its own."""
        used = self.members.copy()
        used[self.members] = self.blend.uses(int(self.members.sum()))
        return used

    def among(self, members: Mask) -> "FittedOnSome":
        """Return it for rows of still more members."""
        return FittedOnSome(self, members)

    def only(self, used: Mask) -> FittedBlend:
        """Return the blend itself, for those of its members that it uses."""
        return self.blend.only(used[self.members])

    def predict(self, rows: Rows) -> Array:
        """Return the blend of its members' predictions."""
        return self.blend.predict(rows.of_members(self.members))

    def arrays(self) -> Arrays:
        """Return the blend's arrays and the mask."""
        return prefixed("some", self.blend.arrays()) | {"members": self.members.astype(np.int64)}


@dataclass(frozen=True)
class Constant:
    """The same prediction for every image: see :meth:`Goal.constant`."""

    goal: Goal
    name: str = "constant"

    bends = False

    def fit(self, rows: Rows, targets: Array) -> "FittedConstant":
        """Take the constant of the targets."""
        return FittedConstant(self.goal.constant(targets, rows.weights))


@dataclass(frozen=True)
class FittedConstant:
    """A constant.

    Attributes:
        constant: Shape () or (n_classes,).
    """

    constant: Array

    @property
    def with_facts(self) -> bool:
        """No facts are needed."""
        return False

    def uses(self, n_members: int) -> Mask:
        """Return that it uses no member."""
        return np.zeros(n_members, dtype=np.bool_)

    def only(self, used: Mask) -> "FittedConstant":
        """Return itself."""
        return self

    def among(self, members: Mask) -> "FittedConstant":
        """Return itself."""
        return self

    def predict(self, rows: Rows) -> Array:
        """Return the constant for every row."""
        n = rows.predictions.shape[1]
        return np.broadcast_to(self.constant, (n, *self.constant.shape)).copy()

    def arrays(self) -> Arrays:
        """Return the constant."""
        return {"constant": np.asarray(self.constant)}
