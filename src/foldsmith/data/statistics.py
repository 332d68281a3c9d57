"""Size and colour statistics of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.data.cache.image_facts import ImageFacts, KeptFacts
from foldsmith.data.cache.image_store import StoreWriter
from foldsmith.data.image_table import CHANNELS, COLUMNS, STATS_BY_DATA
from foldsmith.data.images import FileRead, Image, decode_fully, read_bytes
from foldsmith.data.intensity import DeepImageError, IntensityRange, range_text
from foldsmith.data.intensity_proposal import proposed_range
from foldsmith.data.near_duplicates import Thumbnails, miniature, perceptual_hash, thumbnail
from foldsmith.data.parallel import on_all_cores
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import read_table
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.path_list import Paths


@dataclass(frozen=True)
class MeasuredImages:
    """Results of one pass over the images.

    Attributes:
        table: :data:`COLUMNS` of each image, NaN where one cannot be read.
        problems: Problem of each image; None for a good one.
        hashes: Perceptual hashes, uint64, shape (n,).
        thumbnails: Gives the tiny copies of some of the images by their positions, shape (k,):
            uint8, shape (k, 16, 16, 3). Images that cannot be read have none.
        digests: SHA-256 of the files that all this was found in, uint8, shape (n, 32).
        there: Which images have such a file, be it an image or not, shape (n,).
        ranges: Lowest and highest value of images with more than 8 bits per channel and the share
            that is clipped, shape (n, 3); NaN for others.
        more: Which files hold further pages or frames, shape (n,).
        unscaled: Which images have more than 8 bits per channel, where no range maps them to 8
            bits, shape (n,); they are among the problems.
    """

    table: pd.DataFrame
    problems: list[str | None]
    hashes: npt.NDArray[np.uint64]
    thumbnails: Thumbnails
    digests: npt.NDArray[np.uint8]
    there: npt.NDArray[np.bool_]
    ranges: npt.NDArray[np.float64]
    more: npt.NDArray[np.bool_]
    unscaled: npt.NDArray[np.bool_]


class _Image(NamedTuple):
    """Measurements of one image; without values if they are stored already."""

    file: FileRead | None = None
    problem: DataError | None = None
    facts: ImageFacts | None = None
    versions: Sequence[tuple[bytes, Image]] = ()


def image_statistics(image: Image) -> list[float]:
    """Return an image's values for :data:`COLUMNS`; means and stds in 0..255."""
    mean, std = cv2.meanStdDev(image)
    return [*image.shape[:2], *mean.ravel().tolist(), *std.ravel().tolist()]


def measured_images(
    paths: Sequence[Path],
    file_hashes: FileHashes,
    writer: StoreWriter | None = None,
    kept: KeptFacts | None = None,
    intensity: IntensityRange | None = None,
) -> MeasuredImages:
    """Read every image once, on all cores, with a progress bar.

    Args:
        paths: The images.
        file_hashes: Takes the hash of each file's content.
        writer: Takes the decoded images.
        kept: Stores the measurements. An image whose content has an entry here and in the store is
            not decoded, and not even read if its file is unchanged.
        intensity: Scale of images with more than 8 bits per channel.
    """
    paths = Paths.of(paths)
    kept = KeptFacts(None) if kept is None else kept
    digests, there = file_hashes.known_of(paths)
    rows = np.where(there, kept.find(digests), -1)
    if writer is not None:
        rows[~writer.holds(digests)] = -1
    problems: list[str | None] = [None] * len(paths)
    unscaled = np.zeros(len(paths), bool)

    measure = partial(_measure, kept=kept, writer=writer, intensity=intensity)
    numbers = np.flatnonzero(rows < 0)
    unknown = paths.take(numbers)
    measured = on_all_cores(measure, unknown, "images")
    for k, path, image in zip(numbers, unknown, measured, strict=True):
        problems[k] = None if image.problem is None else str(image.problem)
        unscaled[k] = isinstance(image.problem, DeepImageError)
        there[k] = image.file is not None
        if image.file is not None:
            file_hashes.remember(path, *image.file)
            digests[k] = np.frombuffer(bytes.fromhex(image.file.digest), np.uint8)
            rows[k] = _keep(image, image.file.digest, kept, writer)
    kept.flush()
    return _facts_of(rows, kept, problems, digests, there, unscaled)


def _measure(
    path: Path, kept: KeptFacts, writer: StoreWriter | None, intensity: IntensityRange | None
) -> _Image:
    """Read one image and measure it, unless its content is known."""
    file = None
    try:
        data, file = read_bytes(path)
        digest = bytes.fromhex(file.digest)
        if kept.find_one(digest) >= 0 and (writer is None or writer.has(digest)):
            return _Image(file)
        image, values, more = decode_fully(data, path, intensity)
    except DataError as error:
        return _Image(file, error)
    small = miniature(image)
    found = ImageFacts(
        image_statistics(image), values, more, perceptual_hash(small), thumbnail(small)
    )
    versions = [] if writer is None else writer.versions(file.digest, image)
    return _Image(file, None, found, versions)


def _keep(image: _Image, digest: str, kept: KeptFacts, writer: StoreWriter | None) -> int:
    """Store the measurements of an image; return their row, -1 for a bad image."""
    content = bytes.fromhex(digest)
    row = -1 if image.problem is not None else kept.find_one(content)
    if image.facts is not None and row < 0:
        row = kept.add(content, image.facts)
    if writer is not None:
        writer.add(image.versions)
    return row


def _facts_of(
    rows: npt.NDArray[np.int64],
    kept: KeptFacts,
    problems: list[str | None],
    digests: npt.NDArray[np.uint8],
    there: npt.NDArray[np.bool_],
    unscaled: npt.NDArray[np.bool_],
) -> MeasuredImages:
    """Return the facts of images, each at its row of the kept ones; -1 for a bad image."""
    n, good = len(rows), rows >= 0
    values, hashes = np.full((n, len(COLUMNS)), np.nan), np.zeros(n, np.uint64)
    ranges, further = np.full((n, 3), np.nan), np.zeros(n, bool)
    values[good], hashes[good] = kept.values[rows[good]], kept.hashes[rows[good]]
    ranges[good], further[good] = kept.ranges[rows[good]], kept.more[rows[good]]
    return MeasuredImages(
        pd.DataFrame(values, columns=COLUMNS),
        problems,
        hashes,
        lambda chosen: kept.thumbnails(rows[chosen]),
        digests,
        there,
        ranges,
        further,
        unscaled,
    )


def intensity_problem(project: ProjectFolder, paths: Paths, facts: MeasuredImages) -> str | None:
    """Return that deeper images need a scale, and which; None if they have one.

    Args:
        project: The project.
        paths: The images.
        facts: Their measurements.
    """
    deep = paths.take(np.flatnonzero(facts.unscaled))
    if not len(deep):
        return None
    proposed = proposed_range(deep)
    remedy = "" if proposed is None else f": intensity_range: {range_text(proposed)}"
    return (
        f"{project.source_files[0]}: images with more than 8 bits per channel: {len(deep)} of "
        f"{len(paths)} (for instance {deep[0]}), and the file does not contain the values that "
        f"become black and white; write them into it{remedy} (these are all but the outermost "
        "0.1 % of the values)"
    )


def channel_statistics(table: pd.DataFrame) -> pd.DataFrame:
    """Pool the statistics of each image into statistics of all pixels.

    The standard deviation is that of the pixels: the mean square of all pixels less the
    square of the mean. It is larger than the standard deviation of the images' means, which ignores
    how much an image varies within itself.

    Args:
        table: Rows of :data:`COLUMNS`.

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
        # Within and between images, each as a variance about the common mean.
        std = float(np.sqrt(share @ (stds**2 + (means - mean) ** 2)))
        result[channel] = [mean, std, mean / 255, std / 255]
    return result


def statistics_by_data(table: pd.DataFrame) -> pd.DataFrame:
    """Return :func:`channel_statistics` of all images, then of train and of test.

    Args:
        table: Rows of :data:`COLUMNS` with the column ``data_type`` (train or test).
    """
    parts = [channel_statistics(table)]
    for data_type in ("train", "test"):
        rows = table[table["data_type"] == data_type]
        if len(rows):
            parts.append(channel_statistics(rows).add_suffix(f"_{data_type}", axis=0))
    return pd.concat(parts)


def read_channel_statistics(project: ProjectFolder, row: str) -> list[float]:
    """Return one row of ``stats_by_data.csv``: a value each for red, green and blue.

    Args:
        project: The project.
        row: ``mean_norm``, ``std_norm``, ``mean_norm_train``, ...

    Raises:
        DataError: ``preprocess`` has not been run, or the row is missing.
    """
    path = project.data_dir / STATS_BY_DATA
    if not path.is_file():
        raise DataError(f"{path}: no such file; run 'foldsmith preprocess' first")
    table = read_table(path, list(CHANNELS)).set_index("Unnamed: 0")
    if row not in table.index:
        raise DataError(f"{path}: no row {row!r} (it has: {', '.join(map(str, table.index))})")
    return [float(value) for value in table.loc[row, list(CHANNELS)].to_numpy()]
