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
