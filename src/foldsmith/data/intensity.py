"""Images with more than 8 bits per channel: one linear scale to 8 bits for a whole project."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.errors import DataError

# Lowest and highest value of the scale: they become 0 and 255, values outside are clipped.
IntensityRange = tuple[float, float]


class DeepImageError(DataError):
    """An image has more than 8 bits per channel, and no range maps its values to 8 bits.

    Attributes:
        form: Type of its values, such as ``uint16``.
    """

    def __init__(self, name: object, form: str) -> None:
        super().__init__(
            f"{name}: has {form} values, and project.yml has no intensity_range, which maps such "
            "values to 8 bits; 'foldsmith preprocess' proposes one"
        )
        self.form = form


@dataclass(frozen=True)
class ValueRange:
    """The values of one image before they were scaled.

    Attributes:
        low: The lowest.
        high: The highest.
        outside: Share of them that the range clips.
    """

    low: float
    high: float
    outside: float


def scaled(values: npt.NDArray[np.generic], intensity: IntensityRange) -> npt.NDArray[np.uint8]:
    """Return values as 8 bits: the range linearly from 0 to 255, clipped and rounded.

    Args:
        values: Finite numbers of any real type.
        intensity: The range.
    """
    low, high = intensity
    if values.dtype in (np.uint16, np.int16):
        # All 65,536 values once, in place of every pixel.
        every = np.arange(2**16, dtype=np.uint16).view(values.dtype)
        table: npt.NDArray[np.uint8] = _scaled(every, low, high)
        return table[values.view(np.uint16)]
    return _scaled(values, low, high)


def _scaled(values: npt.NDArray[np.generic], low: float, high: float) -> npt.NDArray[np.uint8]:
    share = (values.astype(np.float64) - low) / (high - low)
    return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)


def value_range(values: npt.NDArray[np.generic], intensity: IntensityRange) -> ValueRange:
    """Return which values an image has, and how many of them a range clips."""
    low, high = intensity
    outside = np.count_nonzero(values < low) + np.count_nonzero(values > high)  # type: ignore[operator]
    return ValueRange(float(values.min()), float(values.max()), float(outside / values.size))


def range_text(intensity: IntensityRange) -> str:
    """Return a range as YAML, with all its digits."""
    return str([int(v) if v == int(v) and abs(v) < 1e15 else v for v in intensity])
