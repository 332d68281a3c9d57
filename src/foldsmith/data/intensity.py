"""Images with more than 8 bits per channel: one linear scale to 8 bits for a whole project."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foldsmith.data.file_formats import is_deep, is_tiff
from foldsmith.data.parallel import on_all_cores
from foldsmith.errors import DataError

# Lowest and highest value of the scale: they become 0 and 255, values outside are clipped.
IntensityRange = tuple[float, float]

# Share of the values below and above the proposed range: single hot or dead pixels must not
# decide how many grey levels all the others have.
_TAIL = 0.001

# Values that the range is proposed from, of all images together, and at least of each.
_SAMPLE, _OF_EACH = 4 * 10**6, 64


# Files that are read for a first proposal, and images of these that are decoded.
_LOOKED_AT, _DECODED = 1_000, 100


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


def proposed_range(images: Sequence[Path]) -> IntensityRange | None:
    """Return a range for images: all of their values but the outermost 0.1 % on either side.

    Args:
        images: Files; images of 8 bits and files that cannot be read are left out.

    Returns:
        The range, in whole numbers if the values are; None if there is no deeper image.
    """
    from foldsmith.data.images import image_values

    of_each = max(_OF_EACH, _SAMPLE // max(1, len(images)))

    def sample(path: Path) -> npt.NDArray[np.generic] | None:
        try:
            values = image_values(path).ravel()
        except DataError:
            return None
        if values.dtype == np.uint8:
            return None
        # Evenly spread, so that the same files always give the same range.
        some = values[:: -(-values.size // of_each)]
        finite: npt.NDArray[np.generic] = some[np.isfinite(some)].copy()
        return finite

    found = on_all_cores(sample, images, "values", leave=False)
    samples = [some for some in found if some is not None and some.size]
    if not samples:
        return None
    drawn = np.concatenate(samples).astype(np.float64)
    low, high = np.quantile(drawn, [_TAIL, 1 - _TAIL], method="nearest").tolist()
    if low == high:
        low, high = float(drawn.min()), float(drawn.max())
    if low == high:
        return low, low + 1.0
    if any(values.dtype.kind == "f" for values in samples):
        # Outwards to a thousandth of the width: 0.00093 to 0.9987 are meant as 0 to 1.
        digits = 3 - math.floor(math.log10(high - low))
        low = round(math.floor(low * 10.0**digits) / 10.0**digits, max(digits, 0))
        high = round(math.ceil(high * 10.0**digits) / 10.0**digits, max(digits, 0))
    return low, high


def first_range(images: Sequence[Path]) -> IntensityRange | None:
    """Return :func:`proposed_range` of some of the images, in little time.

    Args:
        images: Files.
    """
    some = images[:: max(1, len(images) // _LOOKED_AT)]
    deep = [path for path in some if _is_deep(path)]
    return proposed_range(deep[:: max(1, len(deep) // _DECODED)]) if deep else None


def _is_deep(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first = file.read(32)
            # The tags of a TIFF may be anywhere in it.
            return is_deep(first + file.read() if is_tiff(first) else first)
    except OSError:
        return False


def range_text(intensity: IntensityRange) -> str:
    """Return a range as YAML, with all its digits."""
    return str([int(v) if v == int(v) and abs(v) < 1e15 else v for v in intensity])
