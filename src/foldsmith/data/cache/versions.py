"""Names of the folders that decoded images and their facts are kept in."""

import re
import shutil
from pathlib import Path

import cv2

from foldsmith.data.intensity import IntensityRange
from foldsmith.utils.hashing import hash_value

# Another decoder may give other pixels.
DECODER = f"opencv{cv2.__version__}"

_NAME = re.compile(r"v(\d+)-(opencv[0-9.]+)(-range-[0-9a-f]{8})?")


def scale_name(intensity: IntensityRange | None) -> str:
    """Return the end of a folder's name for the scale of deeper images; empty without one."""
    return "" if intensity is None else f"-range-{hash_value(list(intensity))[:8]}"


def remove_other_versions(folder: Path) -> None:
    """Remove the folders beside one that are of another format, or of another scale.

    Those of another decoder stay, as another machine of a cluster may be using them.

    Args:
        folder: The folder in use, ``v3-opencv5.0.0`` or ``v3-opencv5.0.0-range-01234567``.
    """
    own = _NAME.fullmatch(folder.name)
    if own is None:
        return
    for other in folder.parent.glob("v*"):
        found = _NAME.fullmatch(other.name)
        if found is None or found[0] == own[0] or not other.is_dir():
            continue
        if found[1] != own[1] or found[2] == own[2]:
            shutil.rmtree(other, ignore_errors=True)
