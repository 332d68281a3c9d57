"""Seconds of work at a size that is too large to be tried."""

import time
from collections.abc import Callable, Sequence

import numpy as np

# Highest power of a size, and the part of a time that is taken for noise: a higher power than
# needed would make much of it.
_HIGHEST, _NOISE = 3, 0.08


def seconds_at(
    prepared: Callable[[int], Callable[[], object]],
    first: int,
    full: int,
    for_s: float,
    least: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Return the seconds of some work at its smallest and at its full size.

    The size is doubled as long as there is time. If that does not lead to the full size, the times
    are continued by a sum of powers of the size, none of them negative: the first of a line, a
    parabola and a cubic that fits them all within noise.

    Args:
        prepared: Gives the work of a size; only the work itself is timed.
        first: The smallest size, at most ``full``.
        full: The full size.
        for_s: Seconds after which no larger size is tried.
        least: Sizes that are tried whatever they take, at least 2.
        clock: The clock.
    """
    sizes, seconds = [first], []
    while True:
        work = prepared(sizes[-1])
        started = clock()
        work()
        seconds.append(clock() - started)
        if sizes[-1] == full:
            return seconds[0], seconds[-1]
        if len(seconds) >= least:
            next_s = continued(sizes, seconds, 2 * sizes[-1])
            if sum(seconds) + next_s > for_s:
                return seconds[0], continued(sizes, seconds, full)
        sizes.append(min(2 * sizes[-1], full))


def continued(sizes: Sequence[int], seconds: Sequence[float], larger: int) -> float:
    """Return the seconds of a size that is larger than all tried sizes."""
    from scipy.optimize import nnls

    # Relative errors count, and sizes relative to the last one keep the numbers small.
    tried, times = np.asarray(sizes) / sizes[-1], np.maximum(seconds, 1e-9)
    for highest in range(1, _HIGHEST + 1):
        powers = np.arange(highest + 1)
        terms = tried[:, None] ** powers / times[:, None]
        # Columns of one size: nnls does not always end where they differ by powers of ten.
        sizes_of_terms = np.linalg.norm(terms, axis=0)
        factors = nnls(terms / sizes_of_terms, np.ones(len(times)))[0] / sizes_of_terms
        if np.abs(terms @ factors - 1).max() <= _NOISE:
            break
    return float((larger / sizes[-1]) ** powers @ factors)
