"""The scale on which a target is learned: numbers around 0, whatever the unit of the target."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from foldsmith.errors import OutputError
from foldsmith.utils.formatting import number_text

Array = npt.NDArray[np.float64]

# ``globals/target_scale``; ``none`` has no scale at all.
Form = Literal["linear", "log", "rank"]
_FORMS: tuple[Form, ...] = ("linear", "log", "rank")

# Targets further from the median than this many deviations (of the middle nine tenths) count as if
# they were there, unless more than one in a hundred is: then only the last hundredth does.
_FARTHEST = 6.0
_SHARE_BEYOND = 0.01

# The middle nine tenths of a normal distribution, a twentieth part left out at either end, are this
# many deviations wide.
_TWENTIETH = 0.05
_MIDDLE = 3.29

# Differences below this fraction of the largest target come from the rounding of equal targets.
_ROUNDING = 64 * float(np.finfo(np.float64).eps)

# Learned numbers are rounded to this many decimals, the precision of float32: the same
# targets in another unit are then the same numbers, also for a solver that stops at a tolerance.
_DECIMALS = 7

# Quantiles that ``rank`` keeps.
_KNOTS = 101
# Ranks nearer to 0 or 1 than this count as this, so that their normal scores are finite.
_LAST_RANK = 0.5 / (_KNOTS - 1)

# A target is clearly skewed if the long tail is this many times as long as the short one (from the
# median to the last hundredth), and it has more values than a rating has.
_SKEWED = 10.0
_FEW_VALUES = 20

# exp of a larger number overflows.
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True, eq=False)
class TargetScale:
    """A rising function from targets to learned numbers, and back.

    A target y becomes ``r = (y - origin) / unit``, then a value u by the form, which is clipped to
    ``low`` and ``high``, and then ``(u - centre) / deviation``. Only ``origin`` and ``unit`` have
    the unit of the target: shifted and scaled targets are learned as the same numbers.

    Forms: ``linear`` (u is r), ``log`` (the logarithm of one plus the distance from the lowest
    training target, from the highest one if ``unit`` is negative) and ``rank`` (the normal score of
    the rank among the training targets).

    Attributes:
        form: ``linear``, ``log`` or ``rank``.
        origin: Target with r = 0.
        unit: Difference of targets that is 1 in r; negative if distances count downwards.
        low: Lowest u that counts.
        high: Highest; equal to ``low`` if all training targets are equal.
        centre: u that is learned as 0: the mean of the training targets, outliers clipped.
        deviation: Difference of u that is learned as 1, above 0.
        knots: For ``rank`` the r of the quantiles 0, 0.01, ... 1, shape (101,); else zeros.
    """

    form: Form
    origin: float
    unit: float
    low: float
    high: float
    centre: float
    deviation: float
    knots: Array

    @classmethod
    def fit(cls, targets: Array, form: Form) -> "TargetScale":
        """Return the scale of some training targets, float64, shape (n,), finite, n above 0.

        One outlier moves neither centre nor deviation by much: values further out than six
        deviations (those of the middle nine tenths) counts as if it lay there.
        """
        lowest, highest, median = (float(f(targets)) for f in (np.min, np.max, np.median))
        knots = np.zeros(_KNOTS)
        if highest - lowest <= _ROUNDING * max(abs(lowest), abs(highest)):
            return cls("linear", median, 1.0, 0.0, 0.0, 0.0, 1.0, knots)
        if form == "log":
            upwards = highest - median > median - lowest
            origin = lowest if upwards else highest
            distance = median - origin
            # More than half of the targets may be the lowest one.
            unit = distance or float(np.mean(targets)) - origin
        else:
            origin, unit = median, float(np.std(targets))
        first = cls(form, origin, unit, -np.inf, np.inf, 0.0, 1.0, knots)
        if form == "rank":
            ratios = (targets - origin) / unit
            knots = np.quantile(ratios, np.linspace(0, 1, _KNOTS))
            first = replace(first, knots=knots)
        values = first._warped(targets)
        low, high = _bounds(values)
        if low == high:  # nearly all targets are equal: only the differing ones can be learned
            low, high = float(values.min()), float(values.max())
        values = values.clip(low, high)
        centre, deviation = float(values.mean()), float(values.std())
        return cls(form, origin, unit, low, high, centre, deviation, knots)

    @property
    def constant(self) -> bool:
        """Whether all training targets were equal: the only prediction there is."""
        return self.low == self.high

    def forward(self, targets: Array, clip: bool = True) -> Array:
        """Return targets as they are learned.

        Args:
            targets: float64, any shape.
            clip: Let outliers count as if they lay at the bounds.
        """
        values = self._warped(targets)
        if clip:
            values = values.clip(self.low, self.high)
        learned: Array = ((values - self.centre) / self.deviation).round(_DECIMALS)
        return learned

    def inverse(self, learned: npt.ArrayLike) -> Array:
        """Return learned numbers in the unit of the target, float64, the same shape."""
        values = np.asarray(learned, np.float64) * self.deviation + self.centre
        if self.constant:
            return np.full_like(values, self.origin)
        if self.form == "log":
            sign = np.sign(self.unit)
            ratios = np.expm1(np.minimum(sign * values, _LARGEST_EXPONENT))
        elif self.form == "rank":
            from scipy.special import ndtr

            ratios = np.interp(ndtr(values), np.linspace(0, 1, _KNOTS), self.knots)
        else:
            ratios = values
        targets: Array = self.origin + self.unit * ratios
        return targets

    def outliers(self, targets: Array) -> int:
        """Return how many targets lie beyond the bounds of a form that has some."""
        if self.form == "rank":
            return 0
        values = self._warped(targets)
        slack = 1e-9 * max(1.0, abs(self.low), abs(self.high))
        return int(((values < self.low - slack) | (values > self.high + slack)).sum())

    def array(self) -> Array:
        """Return all that :meth:`restore` needs, shape (108,)."""
        numbers = (self.origin, self.unit, self.low, self.high, self.centre, self.deviation)
        return np.array([_FORMS.index(self.form), *numbers, *self.knots], np.float64)

    @classmethod
    def restore(cls, array: Array) -> "TargetScale":
        """Return the scale that gave this array.

        Raises:
            OutputError: No scale can have given it.
        """
        n = 7 + _KNOTS
        whole = array.shape == (n,) and array.dtype == np.float64 and np.isfinite(array).all()
        if not whole or array[0] not in range(len(_FORMS)) or not array[6] > 0:
            raise OutputError("the target scale of the model is damaged; train it again with -f")
        origin, unit, low, high, centre, deviation = array[1:7].tolist()
        form, knots = _FORMS[int(array[0])], array[7:].copy()
        return cls(form, origin, unit, low, high, centre, deviation, knots)

    def _warped(self, targets: Array) -> Array:
        ratios: Array = (np.asarray(targets, np.float64) - self.origin) / self.unit
        if self.form == "log":
            values: Array = np.sign(self.unit) * np.log1p(ratios.clip(0, None))
            return values
        if self.form == "rank":
            grid = np.linspace(0, 1, _KNOTS)
            # Equal targets have the middle of their ranks.
            upwards = np.interp(ratios, self.knots, grid)
            downwards = -np.interp(-ratios, -self.knots[::-1], -grid[::-1])
            return _normal_score((upwards + downwards) / 2)
        return ratios


def form_of(setting: str, targets: Array) -> tuple[Form | None, str]:
    """Return the form of a target's scale, and the reason if it was chosen.

    Args:
        setting: ``globals/target_scale``.
        targets: All labelled targets, shape (n,): every fold has the same form.
    """
    if setting == "none":
        return None, ""
    if setting != "auto":
        return _FORMS[_FORMS.index(setting)], ""
    low, median, high = np.quantile(targets, [_SHARE_BEYOND, 0.5, 1 - _SHARE_BEYOND])
    short, long = sorted((median - low, high - median))
    if long > _SKEWED * short > 0 and len(np.unique(targets)) > _FEW_VALUES:
        side = "lowest" if high - median > median - low else "highest"
        return "log", (
            f"the target is clearly skewed (one tail is {long / short:.0f} times as long as the "
            f"other): the logarithm of its distance from the {side} one is learned; "
            "globals/target_scale=linear learns it as it is"
        )
    return "linear", ""


def lines_of_fold(fold: int, scale: TargetScale | None, labels: Array) -> list[str]:
    """Return remarks about the training labels of a fold, shape (n,), for people."""
    if labels.min() == labels.max():
        value = number_text(labels[0])
        return [f"fold {fold}: all {len(labels)} training targets are {value}: nothing to learn"]
    beyond = 0 if scale is None else scale.outliers(labels)
    if not beyond:
        return []
    return [
        f"fold {fold}: {beyond} of {len(labels)} training targets are outliers, and count as "
        "smaller ones (see globals/target_scale)"
    ]


def _bounds(values: Array) -> tuple[float, float]:
    """Return the lowest and highest value that counts; values have the shape (n,)."""
    ordered = np.sort(values)

    def without(share: float) -> tuple[float, float]:
        # At least one at either end is left out.
        k = int(np.ceil(share * (len(ordered) - 1)))
        return float(ordered[k]), float(ordered[len(ordered) - 1 - k])

    low, high = without(_TWENTIETH)
    far, median = _FARTHEST * max(high - low, 0.0) / _MIDDLE, float(np.median(ordered))
    low, high = without(_SHARE_BEYOND)
    return min(median - far, low), max(median + far, high)


def _normal_score(ranks: npt.ArrayLike) -> Array:
    # Here, not above: scipy takes half a second, which `status` and `check` never need.
    from scipy.special import ndtri

    scores: Array = ndtri(np.clip(ranks, _LAST_RANK, 1 - _LAST_RANK))
    return scores
