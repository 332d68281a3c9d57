"""Image sets with labelled rows and rows whose targets are hidden, as people would have them.

A set is a folder with ``images``, ``train.csv`` and ``test.csv``; ``hidden.csv`` beside them has
the targets and groups of the rows to predict, and only the scoring reads it.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from generated import generate_images
from sklearn.datasets import load_digits

Mirror = Literal["none", "left-right", "all"]

ID, TARGET, GROUP = "image_id", "target", "group"

# Columns of a table of all rows of a set: id, target, group, path of the image, is hidden.
_HIDDEN, _PATH = "hidden", "path"


@dataclass(frozen=True)
class HiddenSet:
    """An image set.

    Attributes:
        name: Its name.
        classes: The target names classes without an order, judged by accuracy; otherwise it is a
            number, judged by RMSE.
        grouped: Groups of rows must not be divided between folds.
        mirror: Mirrored views that suit the images, for the plain network, whose user would
            choose them; foldsmith is not told.
        table: Return all rows, the images written under a folder if they have no files yet.
    """

    name: str
    classes: bool
    grouped: bool
    mirror: Mirror
    table: Callable[[Path, Path | None], pd.DataFrame]

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return "Accuracy" if self.classes else "RMSE"

    def make(self, folder: Path, source: Path | None) -> None:
        """Write the set, once.

        Args:
            folder: Where to.
            source: Folder of the images, for sets that are not generated.
        """
        if (folder / "hidden.csv").is_file():
            return
        shutil.rmtree(folder, ignore_errors=True)
        images = folder / "images"
        images.mkdir(parents=True)
        rows = self.table(folder / "source", source)
        # New names in a new order: names of the source may contain the class.
        rows = rows.sample(frac=1, random_state=0).reset_index(drop=True)
        rows[ID] = [f"{self.name}{k:05}" for k in range(len(rows))]
        for name, path in zip(rows[ID], rows[_PATH], strict=True):
            shutil.copyfile(path, images / f"{name}{Path(path).suffix}")
        hidden = rows[_HIDDEN].to_numpy(dtype=bool)
        known = [ID, *([GROUP] if self.grouped else []), TARGET]
        rows.loc[~hidden, known].to_csv(folder / "train.csv", index=False)
        rows.loc[hidden, [ID]].to_csv(folder / "test.csv", index=False)
        rows.loc[hidden, [ID, TARGET, GROUP]].to_csv(folder / "hidden.csv", index=False)


def rooms(folder: Path, source: Path | None) -> pd.DataFrame:
    """Return four rooms of each house: 60 houses are labelled, the target is the room."""
    images = pd.read_csv(_needed(source, "houses") / "photos.csv")
    hidden = _hidden_groups(images["house_id"], 60)
    return _rows(images["room"], images["house_id"], _files(source, images["file"]), hidden)


def prices(folder: Path, source: Path | None) -> pd.DataFrame:
    """Return the frontal images; the target is the logarithm of the price, half are labelled."""
    root = _needed(source, "houses")
    table = pd.read_csv(root / "train.csv")
    files = _files(source, table["house_id"] + "_frontal.jpg")
    hidden = _hidden_groups(table["house_id"], len(table) // 2)
    return _rows(np.log(table["price"]), table["house_id"], files, hidden)


def tomatoes(folder: Path, source: Path | None) -> pd.DataFrame:
    """Return every fourth image of FGrade: five tomatoes are labelled, three hidden."""
    root = _needed(source, "fgrade")
    order = ["tomato_id", "freshness", "image_id"]
    # Frames of a tomato are nearly alike: every fourth is enough.
    table = pd.read_csv(root / "train.csv").sort_values(order).iloc[::4].reset_index(drop=True)
    files = _files(root / "images", table["image_id"] + ".jpg", "")
    hidden = _hidden_groups(table["tomato_id"], 5)
    return _rows(table["freshness"], table["tomato_id"], files, hidden)


def digits(folder: Path, source: Path | None) -> pd.DataFrame:
    """Return handwritten digits at 32 px as ten classes, 20 images of each labelled."""
    folder.mkdir(parents=True)
    data = load_digits()
    files = []
    for k, digit in enumerate(data.images):
        large = cv2.resize(
            (digit / 16 * 255).astype(np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC
        )
        files.append(folder / f"{k}.png")
        cv2.imwrite(str(files[-1]), large)
    order = np.random.default_rng(0).permutation(len(files))
    hidden = np.ones(len(files), bool)
    for digit in range(10):
        hidden[order[data.target[order] == digit][:20]] = False
    names = pd.Series([f"digit {k}" for k in data.target])
    return _rows(names, pd.Series(range(len(files))), files, hidden)


def artworks(folder: Path, source: Path | None) -> pd.DataFrame:
    """Return 1,200 generated images, about 800 labelled, a series never divided."""
    generate_images(folder, 1200, 0, long_side=64)
    table = pd.read_csv(folder / "train.csv")
    files = _files(folder / "photos", table["object_id"] + ".jpg", "")
    series = table["art_series_id"]
    hidden = _hidden_groups(series, series.nunique() * 2 // 3)
    return _rows(table["target"], series, files, hidden)


SETS = {
    each.name: each
    for each in (
        HiddenSet("rooms", True, True, "left-right", rooms),
        HiddenSet("price", False, False, "left-right", prices),
        HiddenSet("digits", True, False, "none", digits),
        HiddenSet("fgrade", False, True, "all", tomatoes),
        HiddenSet("artwork", False, True, "left-right", artworks),
    )
}


def _needed(source: Path | None, option: str) -> Path:
    if source is None:
        sys.exit(f"this set needs --{option} DIR")
    return source.resolve()


def _files(source: Path | None, names: pd.Series, folder: str = "images") -> list[Path]:
    assert source is not None
    return [source.resolve() / folder / name for name in names]


def _hidden_groups(groups: pd.Series, n_labelled: int) -> npt.NDArray[np.bool_]:
    """Return which rows are hidden if so many groups are labelled, drawn once for all."""
    drawn = np.random.default_rng(0).permutation(np.unique(groups))[n_labelled:]
    return groups.isin(drawn).to_numpy()


def _rows(
    targets: pd.Series, groups: pd.Series, files: list[Path], hidden: npt.NDArray[np.bool_]
) -> pd.DataFrame:
    columns = {TARGET: targets, GROUP: groups, _PATH: files, _HIDDEN: hidden}
    return pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})
