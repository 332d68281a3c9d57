"""Near-identical photos: found by a perceptual hash, kept out of different folds."""

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.data.images import Image

NEAR_DUPLICATES = "near_duplicates.csv"

_MINIATURE_SIDE = 32

# Low frequencies of a miniature that make up a hash, without the mean brightness.
_SIDE = 8

_BITS = 64

# Greatest distance of near-identical photos, by hash and by thumbnail. Of 4,427 photos of eight
# tomatoes no two of different tomatoes are this near (by the hash alone 2,266 pairs are; their
# thumbnails differ by 12.5 or more), while smaller, recompressed, slightly darker or cropped
# copies of 200 paintings are in 95 of 100 cases.
HASH_DISTANCE = 6
THUMBNAIL_DISTANCE = 8.0

THUMBNAIL_SIDE = 16


def miniature(image: Image) -> Image:
    """Return a small copy of a photo, which :func:`perceptual_hash` and :func:`thumbnail` take.

    Args:
        image: RGB, uint8, shape (H, W, 3).

    Returns:
        uint8, shape (32, 32, 3).
    """
    size = (_MINIATURE_SIDE, _MINIATURE_SIDE)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def perceptual_hash(small: Image) -> int:
    """Return the 64-bit pHash of a photo.

    The signs, against their median, of the 64 lowest frequencies of a small grey copy
    (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010).
    Copies of a photo in another size, quality or brightness differ in few bits.

    Args:
        small: Its :func:`miniature`.
    """
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(grey)[:_SIDE, :_SIDE].ravel()
    # Of 63 values the 32nd is their median: np.median takes longer than all else here.
    bits = low > np.partition(low[1:], 31)[31]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(small: Image) -> Image:
    """Return a tiny copy of a photo, uint8, shape (16, 16, 3), from its :func:`miniature`."""
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return cv2.resize(small, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def near_duplicates(
    hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8]
) -> pd.DataFrame:
    """Find the pairs of near-identical photos.

    Args:
        hashes: :func:`perceptual_hash` of each photo, shape (n,).
        thumbnails: :func:`thumbnail` of each photo, shape (n, 16, 16, 3).

    Returns:
        As :func:`near_pairs`, less those whose thumbnails differ in more than brightness:
        by a root mean square above :data:`THUMBNAIL_DISTANCE` (0..255).
    """
    pairs = near_pairs(hashes, HASH_DISTANCE)
    difference = np.empty(len(pairs))
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    # In slices: a thumbnail has 768 values, and there may be many pairs.
    for start in range(0, len(pairs), 10_000):
        part = slice(start, start + 10_000)
        apart = thumbnails[first[part]].astype(np.float32) - thumbnails[second[part]]
        apart -= apart.mean(axis=(1, 2), keepdims=True)
        difference[part] = np.sqrt((apart**2).mean(axis=(1, 2, 3)))
    return pairs[difference <= THUMBNAIL_DISTANCE].reset_index(drop=True)


def near_pairs(hashes: npt.NDArray[np.uint64], distance: int) -> pd.DataFrame:
    """Find all pairs of hashes that differ in at most some bits.

    Two such hashes agree in at least one of ``distance + 1`` bands of bits, so that only
    hashes with an equal band are compared.

    Args:
        hashes: Shape (n,).
        distance: Greatest number of differing bits, 0..63.

    Returns:
        Columns first, second (positions, first < second) and distance, sorted.
    """
    parts = list(_candidates(hashes, distance))
    if not parts:
        return pd.DataFrame({"first": [], "second": [], "distance": []}, dtype=np.int64)
    pairs = np.unique(np.concatenate(parts), axis=0)
    apart = _bit_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
    table = pd.DataFrame({"first": pairs[:, 0], "second": pairs[:, 1], "distance": apart})
    return table.reset_index(drop=True)


def _candidates(hashes: npt.NDArray[np.uint64], distance: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield near pairs, some more than once, shape (k, 2)."""
    edges = np.linspace(0, _BITS, distance + 2).astype(int)
    for low, high in pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=band[order[:1]] ^ np.uint64(1)))
        for members in np.split(order, starts[1:]):
            # One row at a time: a band shared by many photos must not fill the memory.
            for k in range(len(members) - 1):
                others = members[k + 1 :]
                near = others[_bit_count(hashes[others] ^ hashes[members[k]]) <= distance]
                if len(near):
                    pair = np.stack([np.full(len(near), members[k]), near], axis=1)
                    yield np.sort(pair, axis=1).astype(np.int64)


def _bit_count(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    bits = np.unpackbits(values.view(np.uint8).reshape(len(values), 8), axis=1)
    counts: npt.NDArray[np.int64] = bits.sum(axis=1, dtype=np.int64)
    return counts


def merged_groups(groups: pd.Series | None, pairs: pd.DataFrame, n: int) -> npt.NDArray[np.int64]:
    """Join the groups that near-identical photos link, directly or through others.

    Args:
        groups: Group of each photo; None if every photo stands alone.
        pairs: Columns first, second: linked photos.
        n: Number of photos.

    Returns:
        A number per photo, shape (n,): equal for photos that belong together.
    """
    # Here, not above: few projects merge groups, and SciPy takes a while to import.
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    own = np.arange(n) if groups is None else pd.factorize(groups.astype(str))[0]
    first, second = (own[pairs[name].to_numpy(dtype=np.int64)] for name in ("first", "second"))
    size = int(own.max()) + 1
    links = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    component: npt.NDArray[np.int64] = np.asarray(
        connected_components(links, directed=False)[1], dtype=np.int64
    )
    return component[own]
