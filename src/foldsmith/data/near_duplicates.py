"""Near-identical images: found by a perceptual hash, kept out of different folds."""

from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from math import comb

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

_FOURS = 0x0F0F0F0F0F0F0F0F

# Cost of sorting a hash, in comparisons of two hashes.
_SORTED = 20

# Greatest distance of near-identical images, by hash and by thumbnail. Of 4,427 images of eight
# tomatoes no two of different tomatoes are this near (by the hash alone 2,266 pairs are; their
# thumbnails differ by 12.5 or more), while smaller, recompressed, slightly darker or cropped
# copies of 200 paintings are in 95 of 100 cases.
HASH_DISTANCE = 6
THUMBNAIL_DISTANCE = 8.0

THUMBNAIL_SIDE = 16

# Thumbnails that are compared with each other at a time: 768 numbers each.
_COMPARED = 1024

# Gives the tiny copies of images, uint8, shape (k, 16, 16, 3), by their positions, shape (k,).
Thumbnails = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]]


def miniature(image: Image) -> Image:
    """Return a small copy of an image, which :func:`perceptual_hash` and :func:`thumbnail` take.

    Args:
        image: RGB, uint8, shape (H, W, 3).

    Returns:
        uint8, shape (32, 32, 3).
    """
    size = (_MINIATURE_SIDE, _MINIATURE_SIDE)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def perceptual_hash(small: Image) -> int:
    """Return the 64-bit pHash of an image.

    The signs, against their median, of the 64 lowest frequencies of a small grey copy
    (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010).
    Copies of an image in another size, quality or brightness differ in few bits.

    Args:
        small: Its :func:`miniature`.
    """
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(grey)[:_SIDE, :_SIDE].ravel()
    # Of 63 values the 32nd is their median: np.median takes longer than all else here.
    bits = low > np.partition(low[1:], 31)[31]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(small: Image) -> Image:
    """Return a tiny copy of an image, uint8, shape (16, 16, 3), from its :func:`miniature`."""
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return cv2.resize(small, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def near_duplicates(
    hashes: npt.NDArray[np.uint64],
    thumbnails: Thumbnails,
    rows: npt.NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """Find links between near-identical images: as few as join each group of them.

    Two images are near-identical if their hashes differ in at most :data:`HASH_DISTANCE` bits and
    their thumbnails, apart from brightness, by a root mean square of at most
    :data:`THUMBNAIL_DISTANCE` (0..255). A group is all images that are so directly or through
    others. A group of n images has n - 1 links, not the n (n - 1) / 2 of all its pairs.

    Args:
        hashes: :func:`perceptual_hash` of each image, shape (n,).
        thumbnails: Gives the :func:`thumbnail` of images by their positions.
        rows: The images to compare, in their order; None for all.

    Returns:
        Columns first and second, positions in ``rows``.
    """
    rows = np.arange(len(hashes)) if rows is None else rows
    different, hash_of = np.unique(hashes[rows], return_inverse=True)
    near = near_pairs(different, HASH_DISTANCE)[["first", "second"]].to_numpy()
    # Images of each hash that were not reached yet.
    left = np.split(
        np.argsort(hash_of, kind="stable"), np.cumsum(np.bincount(hash_of, minlength=1))[:-1]
    )
    beside = _neighbours(near, len(different))
    alone = np.array([len(group) < 2 for group in left], bool)
    alone[near.ravel()] = False
    reached = alone[hash_of] if len(hash_of) else np.zeros(0, bool)
    links = [np.zeros((0, 2), np.int64)]
    for start in np.flatnonzero(~reached).tolist():
        if reached[start]:
            continue
        reached[start] = True
        frontier = np.array([start])
        while len(frontier):
            found = [np.zeros((0, 2), np.int64)]
            for one in np.unique(hash_of[frontier]).tolist():
                seekers = frontier[hash_of[frontier] == one]
                for other in (one, *beside(one)):
                    left[other] = left[other][~reached[left[other]]]
                    for part in range(0, len(left[other]), _COMPARED):
                        candidates = left[other][part : part + _COMPARED]
                        found.append(_reached_by(seekers, candidates, thumbnails, rows))
                        reached[found[-1][:, 1]] = True
            links += found
            frontier = np.concatenate(found)[:, 1]
    joined = np.concatenate(links)
    return pd.DataFrame({"first": joined[:, 0], "second": joined[:, 1]})


def _neighbours(pairs: npt.NDArray[np.int64], n: int) -> Callable[[int], list[int]]:
    """Return a function from one of n things to the things that pairs link with it."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], np.arange(n + 1))
    return lambda one: both[starts[one] : starts[one + 1], 1].tolist()


def _reached_by(
    seekers: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int64],
    thumbnails: Thumbnails,
    rows: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return links from seekers to the candidates whose thumbnails are near one, shape (k, 2)."""
    links = [np.zeros((0, 2), np.int64)]
    theirs = _flat(thumbnails(rows[candidates]))
    # The first alone: in a group of equal images it reaches all others.
    for begin, end in [(0, 1), *((k, k + _COMPARED) for k in range(1, len(seekers), _COMPARED))]:
        if not len(candidates):
            break
        some = seekers[begin:end]
        own = _flat(thumbnails(rows[some]))
        squares = (own**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1) - 2 * own @ theirs.T
        near = squares <= own.shape[1] * THUMBNAIL_DISTANCE**2
        hit = near.any(axis=0)
        links.append(np.column_stack([some[near[:, hit].argmax(axis=0)], candidates[hit]]))
        candidates, theirs = candidates[~hit], theirs[~hit]
    return np.concatenate(links)


def _flat(copies: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return thumbnails less the mean of each channel, shape (n, 768)."""
    values = copies.astype(np.float64)
    values -= values.mean(axis=(1, 2), keepdims=True)
    return values.reshape(len(values), -1)


def near_pairs(hashes: npt.NDArray[np.uint64], distance: int) -> pd.DataFrame:
    """Find all pairs of hashes that differ in at most some bits.

    The bits are cut into ``distance + m`` bands. Two such hashes agree in at least m of them, so
    that for every m of the bands only hashes are compared that agree in those. With a larger m
    there are more such choices, and fewer hashes to compare in each: of a million images 20
    million pairs instead of 7,000 million.

    Args:
        hashes: Shape (n,).
        distance: Greatest number of differing bits, 0..60.

    Returns:
        Columns first, second (positions, first < second) and distance, sorted.
    """
    parts = list(_near(hashes, distance))
    if not parts:
        return pd.DataFrame({"first": [], "second": [], "distance": []}, dtype=np.int64)
    pairs = np.concatenate(parts)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    apart = _bit_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
    return pd.DataFrame({"first": pairs[:, 0], "second": pairs[:, 1], "distance": apart})


def _near(hashes: npt.NDArray[np.uint64], distance: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield near pairs, each once, shape (k, 2)."""
    n = len(hashes)

    def cost(m: int) -> float:
        choices = comb(distance + m, m)
        return choices * n * (_SORTED + n / 2 / 2 ** (_BITS * m / (distance + m)))

    m = min(range(1, 4), key=cost)
    edges = np.linspace(0, _BITS, distance + m + 1).astype(int).tolist()
    masks = [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]
    for chosen in combinations(range(len(masks)), m):
        band = hashes & np.bitwise_or.reduce([masks[k] for k in chosen])
        # A pair that agrees in more than m bands is one of the first m of them alone.
        before = [masks[k] for k in range(chosen[-1]) if k not in chosen]
        order = np.argsort(band, kind="stable")
        band, ordered = band[order], hashes[order]
        places = np.arange(n)
        # Neighbours, then those two apart, ...: what shares a band stands in a row.
        for step in range(1, n):
            places = places[: np.searchsorted(places, n - step)]
            places = places[band[places] == band[places + step]]
            if not len(places):
                break
            differing = ordered[places] ^ ordered[places + step]
            near = np.flatnonzero(_bit_count(differing) <= distance)
            for mask in before:
                near = near[(differing[near] & mask) != 0]
            if len(near):
                pair = np.stack([order[places[near]], order[places[near] + step]], axis=1)
                yield np.sort(pair, axis=1)


def _bit_count(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the number of bits that are set: of pairs, of fours, of bytes, then of all."""
    one, two, four = (np.uint64(m) for m in (0x5555555555555555, 0x3333333333333333, _FOURS))
    values = values - ((values >> np.uint64(1)) & one)
    values = (values & two) + ((values >> np.uint64(2)) & two)
    values = (values + (values >> np.uint64(4))) & four
    return ((values * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)


def merged_groups(groups: pd.Series | None, pairs: pd.DataFrame, n: int) -> npt.NDArray[np.int64]:
    """Join the groups that near-identical images link, directly or through others.

    Args:
        groups: Group of each image; None if every image stands alone.
        pairs: Columns first, second: linked images.
        n: Number of images.

    Returns:
        A number per image, shape (n,): equal for images that belong together.
    """
    # Here, not above: few projects merge groups, and SciPy takes a while to import.
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not n:
        return np.zeros(0, np.int64)
    own = np.arange(n) if groups is None else pd.factorize(groups.astype(str))[0]
    first, second = (own[pairs[name].to_numpy(dtype=np.int64)] for name in ("first", "second"))
    size = int(own.max()) + 1
    links = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    component: npt.NDArray[np.int64] = np.asarray(
        connected_components(links, directed=False)[1], dtype=np.int64
    )
    return component[own]
