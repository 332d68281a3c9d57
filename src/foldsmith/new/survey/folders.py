"""Images that lie in one folder per class."""

import logging
import os
from collections import defaultdict
from pathlib import Path

import pandas as pd

from foldsmith.errors import DataError
from foldsmith.new.survey.images import ImageFolder
from foldsmith.project.image_files import LeftOut, is_hidden, walk_images
from foldsmith.utils.formatting import brief

logger = logging.getLogger(__name__)

# Folders that are parts of a data set, not classes of it.
_TEST_PARTS = {"test", "testing", "tests", "test_images", "unlabelled", "unlabeled"}
_PARTS = _TEST_PARTS | {"train", "training", "train_images", "val", "valid", "validation"}


def class_folders(images: ImageFolder) -> pd.DataFrame:
    """Return a table of images that lie in one folder per class.

    Returns:
        Columns image_id (the path of the image) and class (the first folder of it), as text.

    Raises:
        DataError: There are not at least two folders, images lie beside them, a folder holds no
            image but other files, a folder is called like a part of a data set, or the classes
            may as well be the folders below.
    """
    where = f"--images: {images.folder}"
    beside = [name for name in images.names if "/" not in name]
    inner: dict[str, set[str]] = defaultdict(set)
    for name in images.names:
        first, _, rest = name.partition("/")
        if rest:
            inner[first].add(rest.partition("/")[0] if "/" in rest else "")
    classes = sorted(inner)
    _refuse_parts(images.folder, where, classes)
    if beside or len(classes) < 2:
        what = f"images such as {beside[0]} lie in no folder" if beside else "there is only one"
        hint = "name a table of ids and targets with --train"
        if not beside and len(inner[classes[0]] - {""}) > 1:
            hint = f"perhaps --images {_shown(images.folder / classes[0])}; or {hint}"
        raise DataError(
            f"{where}: without --train it must hold one folder per class, but {what}; {hint}"
        )
    _refuse_folders_without_images(images.folder, where, classes)
    _refuse_two_levels(where, inner)
    return pd.DataFrame(
        {"image_id": images.names, "class": [name.split("/")[0] for name in images.names]},
        dtype=object,
    )


def _shown(folder: Path) -> str:
    shown = os.path.relpath(folder)
    return str(folder) if shown.startswith("..") else shown


def _refuse_parts(folder: Path, where: str, classes: list[str]) -> None:
    """Make sure that no class is called like a part of a data set."""
    parts = [name for name in classes if name.lower() in _PARTS]
    if not parts:
        return
    others = [name for name in classes if name not in parts]
    test = next((name for name in parts if name.lower() in _TEST_PARTS), None)
    labelled = [name for name in parts if name != test]
    flags = []
    if labelled and not others:
        flags.append(f"--images {_shown(folder / labelled[0])}")
    if test is not None:
        flags.append(f"--test-images {_shown(folder / test)}")
    named = f" with {' '.join(flags)}" if flags else " with --images and --test-images"
    if not others:
        raise DataError(
            f"{where}: holds {', '.join(parts)}, which are no classes; name the folder of the "
            f"labelled images and the folder of the images to predict{named}"
        )
    rest = f"name it{named}" if test is not None and len(parts) == 1 else "move it elsewhere"
    raise DataError(
        f"{where}: {', '.join(parts)} among the class folders ({_listed(others)}) is called like a "
        f"part of a data set: if its images are to be predicted, {rest}; if it is a class, give "
        "its folder another name"
    )


def _refuse_folders_without_images(folder: Path, where: str, classes: list[str]) -> None:
    """Make sure that no class vanishes because of its files' kind; say which folders are empty."""
    for path in sorted(folder.iterdir()):
        if path.name in classes or is_hidden(path.name) or not path.is_dir():
            continue
        left_out = LeftOut()
        if any(True for _ in walk_images(path, left_out)):
            continue  # the folder of --test-images, or linked to from another
        if str(left_out):
            raise DataError(
                f"{where}: folder {path.name} holds no images but {left_out}; convert them to "
                "PNG or JPEG, or move the folder elsewhere"
            )
        logger.info(f"note: folder {brief(path.name)} is empty and no class")


def _refuse_two_levels(where: str, inner: dict[str, set[str]]) -> None:
    """Make sure that the same folders do not lie in each of the first folders."""
    shared = set.intersection(*inner.values())
    if "" not in set.union(*inner.values()) and len(shared) > 1:
        raise DataError(
            f"{where}: the classes may be {_listed(sorted(inner))} or the folders in each of them, "
            f"{_listed(sorted(shared))}; name a table of ids and targets with --train"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(map(brief, names[:3])) + (", ..." if len(names) > 3 else "")
