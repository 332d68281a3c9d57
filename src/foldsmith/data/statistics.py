"""Size and colour statistics of photos."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from foldsmith.config import Project, Types
from foldsmith.data.images import decode
from foldsmith.data.tables import read_table
from foldsmith.errors import DataError

IMG_INFO = "img_info.csv"
STATS_BY_DATA = "stats_by_data.csv"

CHANNELS = {"Red": "r", "Green": "g", "Blue": "b"}
COLUMNS = [
    "height",
    "width",
    *(f"{short}_{name}" for name in ("mean", "std") for short in CHANNELS.values()),
]


def photo_statistics(path: Path) -> list[float]:
    """Return one photo's values for :data:`COLUMNS`; means and stds in 0..255."""
    image = decode(path)
    mean, std = cv2.meanStdDev(image)
    return [*image.shape[:2], *mean.ravel(), *std.ravel()]


def image_table(paths: Sequence[Path]) -> pd.DataFrame:
    """Return :data:`COLUMNS` of every photo, on all cores, with a progress bar.

    Raises:
        DataError: Photos cannot be read; the message lists the first of them.
    """

    def measure(path: Path) -> list[float] | DataError:
        try:
            return photo_statistics(path)
        except DataError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(tqdm(pool.map(measure, paths), desc="photos", total=len(paths), disable=None))
    bad = [row for row in rows if isinstance(row, DataError)]
    if bad:
        shown = "\n".join(map(str, bad[:10]))
        more = f"\n... and {len(bad) - 10} more unreadable photos" if len(bad) > 10 else ""
        raise DataError(shown + more)
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"height": int, "width": int})


def channel_statistics(table: pd.DataFrame) -> pd.DataFrame:
    """Pool the statistics of photos into those of all their pixels.

    The standard deviation is that of the pixels: the mean square of all pixels less the
    square of the mean. It is larger than the spread of the photos' means, which leaves out
    how much a photo varies within itself.

    Args:
        table: Rows of :func:`image_table`.

    Returns:
        Rows ``mean``, ``std`` (0..255), ``mean_norm``, ``std_norm`` (0..1); columns Red,
        Green, Blue.
    """
    pixels = (table["height"] * table["width"]).to_numpy(dtype=np.float64)
    share = pixels / pixels.sum()
    result = pd.DataFrame(index=["mean", "std", "mean_norm", "std_norm"], dtype=np.float64)
    for channel, short in CHANNELS.items():
        means = table[f"{short}_mean"].to_numpy(dtype=np.float64)
        stds = table[f"{short}_std"].to_numpy(dtype=np.float64)
        mean = float(share @ means)
        # Within and between photos, each as a variance about the common mean.
        std = float(np.sqrt(share @ (stds**2 + (means - mean) ** 2)))
        result[channel] = [mean, std, mean / 255, std / 255]
    return result


def statistics_by_data(table: pd.DataFrame) -> pd.DataFrame:
    """Return :func:`channel_statistics` of all photos, then of train and of test.

    Args:
        table: Rows of :func:`image_table` with the column ``data_type`` (train or test).
    """
    parts = [channel_statistics(table)]
    for data_type in ("train", "test"):
        rows = table[table["data_type"] == data_type]
        if len(rows):
            parts.append(channel_statistics(rows).add_suffix(f"_{data_type}", axis=0))
    return pd.concat(parts)


def read_channel_statistics(project: Project, row: str) -> list[float]:
    """Return one row of ``stats_by_data.csv``: a value each for red, green and blue.

    Args:
        project: The project.
        row: ``mean_norm``, ``std_norm``, ``mean_norm_train``, ...

    Raises:
        DataError: ``preprocess`` has not been run, or there is no such row.
    """
    path = project.data_dir / STATS_BY_DATA
    if not path.is_file():
        raise DataError(f"{path}: no such file; run 'foldsmith preprocess' first")
    table = read_table(path, list(CHANNELS)).set_index("Unnamed: 0")
    if row not in table.index:
        raise DataError(f"{path}: no row {row!r} (it has: {', '.join(map(str, table.index))})")
    return [float(value) for value in table.loc[row, list(CHANNELS)].to_numpy()]


TYPES: Types = {"ChannelStatistics": read_channel_statistics}
