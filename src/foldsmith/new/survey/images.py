"""The images below a folder, and which of them a text names."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from foldsmith.data.images import image_values
from foldsmith.errors import DataError
from foldsmith.project.image_files import (
    LISTED_SUFFIXES,
    LeftOut,
    has_suffix,
    lower_suffix,
    walk_images,
    without_suffix,
)

# Images whose size is looked at.
_SAMPLE = 20

# A path from the root of a machine, or an address.
_FROM_ROOT = re.compile(r"/|\\\\|[A-Za-z]:[\\/]|[a-z0-9+]+://")


def is_from_root(text: str) -> bool:
    """Return whether a text is a path from the root of some machine, or an address."""
    return _FROM_ROOT.match(text) is not None


class ImageFolder:
    """The images below a folder, behind links too; hidden ones are left out.

    Args:
        folder: The folder.
        flag: Its name on the command line, for messages.
        without: A folder whose images are left out, if it lies in this one.

    Attributes:
        folder: The folder, absolute; links in its path stay.
        names: Path of each image in it, with ``/``, sorted.
        left_out: Its other files.

    Raises:
        DataError: The folder is missing, or contains no image.
    """

    def __init__(self, folder: Path, flag: str = "--images", without: Path | None = None) -> None:
        self.folder = Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise DataError(f"{flag}: {folder}: no such folder")
        self.left_out = LeftOut()
        found = [path.relative_to(self.folder) for path in walk_images(self.folder, self.left_out)]
        if without is not None and self._holds(without):
            beside = Path(os.path.abspath(without)).relative_to(self.folder)
            found = [path for path in found if not path.is_relative_to(beside)]
        self.names = sorted(path.as_posix() for path in found)
        if not self.names:
            also = f"; it holds {self.left_out}" if str(self.left_out) else ""
            raise DataError(f"{flag}: {folder}: holds no images ({LISTED_SUFFIXES}){also}")
        self._whole: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        self._tails: dict[str, list[str]] = {}
        for name in self.names:
            self._whole.setdefault(lower_suffix(name), []).append(name)
            self._stems.setdefault(without_suffix(name), []).append(name)
            parts = name.split("/")
            for start in range(1, len(parts)):
                tail = "/".join(parts[start:])
                for key in {lower_suffix(tail), without_suffix(tail)}:
                    self._tails.setdefault(key, []).append(name)

    def _holds(self, folder: Path) -> bool:
        """Return whether a folder lies in this one, and is another."""
        other = Path(os.path.abspath(folder))
        return other != self.folder and other.is_relative_to(self.folder)

    def find(self, text: str) -> list[str]:
        r"""Return the images that a text names; more than one if it is ambiguous.

        A text may be the path in the folder, with or without suffix (upper or lower case); the
        same with further folders before it, as in ``data/images/cats/1.jpg`` for the folder
        ``data/images``; or the last part of a path, as in ``1`` for ``cats/1.jpg``. It may
        have ``\`` for ``/``. The whole path goes before its last part. Of a path from the root of
        another machine, the longest end that names an image counts.
        """
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if not parts:
            return []
        own = self.folder.parts
        for start in range(len(parts)):
            if start and tuple(parts[:start]) != own[-start:]:
                continue
            path = "/".join(parts[start:])
            alike = self._whole.get(lower_suffix(path))
            if alike:
                return [path] if path in alike else alike
            if path in self._stems:
                return self._stems[path]
        found = self._tails.get(lower_suffix("/".join(parts)), [])
        if found or not is_from_root(text) or os.path.exists(text):
            return found
        for start in range(1, len(parts)):
            tail = lower_suffix("/".join(parts[start:]))
            found = self._whole.get(tail) or self._stems.get(tail) or self._tails.get(tail, [])
            if found:
                return found
        return []

    def sides(self) -> tuple[int, int] | None:
        """Return the shortest and the longest side of some images; None if none is readable."""
        sides: list[int] = []
        for name in self.names[:: -(-len(self.names) // _SAMPLE)]:
            try:
                sides += image_values(self.folder / name).shape[:2]
            except DataError:
                continue  # preprocess will say so
        return (min(sides), max(sides)) if sides else None


def ids_of(images: ImageFolder, prefix: str, train_ids: Iterable[str]) -> list[str]:
    """Return ids for images that no table names, in the manner of other ids.

    Names, or paths if names repeat or are ids of the others already; with a suffix if those
    have one.

    Args:
        images: The images.
        prefix: Folder to put before paths that would be ids of the others.
        train_ids: The ids of the labelled images.
    """
    taken = set(train_ids)
    shown: Callable[[str], str] = str if any(map(has_suffix, taken)) else without_suffix
    paths = [shown(name) for name in images.names]
    names = [path.split("/")[-1] for path in paths]
    for ids in (names, paths, images.names):
        if len(set(ids)) == len(ids) and not taken & set(ids):
            return ids
    return [f"{prefix}/{name}" for name in images.names]
