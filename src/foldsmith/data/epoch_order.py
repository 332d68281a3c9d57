"""The order in which an epoch takes its images."""

import numpy as np
import numpy.typing as npt

# Runs of neighbours that a window holds: so many places of the data are mixed at a time.
_RUNS = 16


def epoch_order(n: int, seed: int, epoch: int, window: int | None = None) -> npt.NDArray[np.int64]:
    """Return the order of an epoch: every image once, a function of its arguments alone.

    Without a window, or with one that holds all images, every order is as likely as any other,
    and reads go anywhere. That is the better choice as long as the decoded images fit into memory,
    or lie on a disk that answers at once, and costs nothing there.

    With a window the images are cut into runs of neighbours, a sixteenth of the window each, at
    places that differ from epoch to epoch; the runs are put into a random order, and images are
    shuffled within about a window of that sequence. So whatever is read comes from some sixteen
    stretches of the data, which is for images that are larger than memory and lie on a slow disk or
    behind a network. Neighbours of the table often share a window: a table that is sorted by
    target or place wants a large one, of many batches.

    Args:
        n: Number of images, neighbours in the order of their table, in which ``preprocess`` puts
            them into the image store too. Where the store has them does not matter.
        seed: Seed.
        epoch: Epoch.
        window: Images among which the order is random; any ``window`` images in a row come from
            less than twice as many in a row of the sequence of runs.

    Returns:
        int64, shape (n,).
    """
    rng = np.random.default_rng([seed, epoch])
    if window is None or window >= n:
        return rng.permutation(n)
    run = max(1, window // _RUNS)
    # The first run is cut short by as much as all of them are moved.
    starts = np.arange(-int(rng.integers(run)), n, run).clip(0)
    lengths = np.diff(starts, append=n)
    runs = rng.permutation(len(starts))
    ends = lengths[runs].cumsum()
    sequence = np.arange(n) + np.repeat(starts[runs] - ends + lengths[runs], lengths[runs])
    # By numbers drawn from the half of a window that follows each place: none moves further.
    places = np.argsort(np.arange(n) + rng.random(n) * (window / 2), kind="stable")
    order: npt.NDArray[np.int64] = sequence[places]
    return order


# An epoch number is below 2**24; see :func:`stream_epoch`.
_EPOCH_BITS = 24


def stream_epoch(epoch: int, repeat: int) -> int:
    """Return the first number of the key of a sample that an epoch takes for the n-th time.

    Each time draws another augmentation; the first one's number is the epoch itself.
    """
    return epoch | repeat << _EPOCH_BITS


def of_stream_epoch(number: int) -> tuple[int, int]:
    """Return the epoch and the repeat of :func:`stream_epoch`."""
    return number & ((1 << _EPOCH_BITS) - 1), number >> _EPOCH_BITS


def balanced_order(
    classes: npt.NDArray[np.bool_], seed: int, epoch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the order of an epoch that takes every class equally often.

    An epoch takes as many images as there are. Numbers of images of two classes differ by one at
    most, and so do the times that two images of a class are taken. Images without any class are
    one more class. All is a function of the arguments alone.

    Args:
        classes: Which classes or labels each image has, shape (n, n_classes); an image with
            several labels may be taken for each of them.
        seed: Seed.
        epoch: Epoch.

    Returns:
        Indices and how often the epoch has taken each of them before, int64, shape (n,).
    """
    # The third number makes its random stream differ from that of ``epoch_order``.
    rng = np.random.default_rng([seed, epoch, 1])
    n = len(classes)
    of_class = [np.flatnonzero(column) for column in classes.T]
    of_class.append(np.flatnonzero(~classes.any(axis=1)))
    there = [images for images in of_class if len(images)]
    sizes = np.full(len(there), n // len(there))
    sizes[rng.permutation(len(there))[: n % len(there)]] += 1
    taken = [_in_turn(images, size, rng) for images, size in zip(there, sizes, strict=True)]
    order: npt.NDArray[np.int64] = rng.permutation(np.concatenate(taken))
    return order, _repeats(order)


def _in_turn(
    images: npt.NDArray[np.int64], size: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return so many of the images: all of them again and again, each time in a new order."""
    turns = [rng.permutation(images) for _ in range(-(-size // len(images)))]
    return np.concatenate([*turns, images[:0]])[:size]


def _repeats(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how often each index stands before its place."""
    by_index = np.argsort(order, kind="stable")
    ordered = order[by_index]
    first = np.searchsorted(ordered, ordered)
    repeats = np.empty_like(order)
    repeats[by_index] = np.arange(len(order)) - first
    return repeats
