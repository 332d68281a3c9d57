"""Which files are images: by their names, the same for every command."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from foldsmith.utils.formatting import counted

# Suffixes of the images of a folder; a file that is named is tried whatever it is called.
# OpenCV decodes all of these.
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".gif",
    ".jp2",
    ".avif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
)

# For messages.
LISTED_SUFFIXES = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)

# Folders and files that systems put beside images: of macOS, Synology, QNAP, Windows.
_SYSTEM_FOLDERS = {"__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db"}


def has_suffix(name: str) -> bool:
    """Return whether a name has the suffix of an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def without_suffix(name: str) -> str:
    """Return the path of an image without the suffix; other texts stay as they are."""
    return name[: -len(PurePosixPath(name).suffix)] if has_suffix(name) else name


def lower_suffix(name: str) -> str:
    """Return the path of an image with the suffix in lower case; other texts as they are."""
    return without_suffix(name) + PurePosixPath(name).suffix.lower() if has_suffix(name) else name


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or put there by a system."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS | _SYSTEM_FILES


@dataclass
class LeftOut:
    """Files of a folder that are not taken for images.

    Attributes:
        suffixes: How many files there are of each suffix, in lower case (``""`` for none); of
            files that are neither hidden nor a system's.
        hidden: Hidden files that end like images.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    hidden: int = 0

    def __str__(self) -> str:
        """Return the counts, as in ``8 .heic, 1 .csv``; empty if nothing is left out."""
        ordered = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))
        texts = [f"{n:,} {suffix or 'without suffix'}" for suffix, n in ordered]
        if self.hidden:
            texts.append(counted(self.hidden, "hidden image"))
        return ", ".join(texts)


def walk_images(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """Yield the images in a folder and below, behind links to folders too, each folder once.

    Hidden files and folders, and files that a system puts beside images, are skipped.

    Args:
        folder: The folder.
        left_out: Other files are added to it.
    """
    # Links may lead back to where they are, or several to one folder.
    entered: set[str] = set()
    for name, inner, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(name)
        if real in entered:
            inner.clear()
            continue
        entered.add(real)
        inner[:] = [each for each in inner if not is_hidden(each)]
        # A folder itself goes before a link to it.
        inner.sort(key=lambda each: (os.path.islink(os.path.join(name, each)), each))
        for file in files:
            if is_hidden(file):
                left_out.hidden += has_suffix(file)
            elif has_suffix(file):
                path = Path(name, file)
                if path.is_file():
                    yield path
            else:
                left_out.suffixes[PurePosixPath(file).suffix.lower()] += 1
