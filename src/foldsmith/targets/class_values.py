"""Numbers and the values of classes."""

import numpy as np
import numpy.typing as npt

# A target may be this far from the value of its class, as a share of the distance of classes.
_ALMOST = 1e-3


def nearest(numbers: npt.NDArray[np.float64], values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the position of the value nearest to each number, int64, shape (n,).

    Halfway between two values it is the lower one. Time and memory grow with the logarithm of
    the number of values: there may be thousands of classes.
    """
    known = np.asarray(values, dtype=np.float64)
    order = np.argsort(known, kind="stable")
    ascending = known[order]
    halfway = ascending[:-1] + np.diff(ascending) / 2
    positions: npt.NDArray[np.int64] = order[np.searchsorted(halfway, numbers, side="left")]
    return positions


def off_values(numbers: npt.NDArray[np.float64], values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which numbers are none of the values, shape (n,); NaN is none.

    Args:
        numbers: Shape (n,).
        values: Value of each class, all different, two or more.
    """
    known = np.sort(np.asarray(values, dtype=np.float64))
    apart = np.abs(numbers - known[nearest(numbers, known)])
    off: npt.NDArray[np.bool_] = ~(apart <= _ALMOST * np.diff(known).min())
    return off
