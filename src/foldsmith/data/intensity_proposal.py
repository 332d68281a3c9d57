"""Which scale to 8 bits suits images with more bits per channel, from the values that they have."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foldsmith.data.file_formats import is_deep, is_tiff
from foldsmith.data.images import image_values
from foldsmith.data.intensity import IntensityRange
from foldsmith.data.parallel import on_all_cores
from foldsmith.errors import DataError

# Share of the values below and above the proposed range: single hot or dead pixels must not
# decide how many grey levels all the others have.
_TAIL = 0.001

# Values that the range is proposed from, of all images together, and at least of each.
_SAMPLE, _OF_EACH = 4 * 10**6, 64

# Files that are read for a first proposal, and images of these that are decoded.
_LOOKED_AT, _DECODED = 1_000, 100


def proposed_range(images: Sequence[Path]) -> IntensityRange | None:
    """Return a range for images: all of their values but the outermost 0.1 % on either side.

    Args:
        images: Files; images of 8 bits and files that cannot be read are left out.

    Returns:
        The range, in whole numbers if the values are; None if there is no deeper image.
    """
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
