"""Folds that balance several labels per image."""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def iterative_folds(labels: Rows, n_splits: int, seed: int, groups: Rows | None = None) -> Rows:
    """Assign a fold to every row so that each label is spread evenly.

    Iterative stratification (Sechidis, Tsoumakas & Vlahavas, "On the Stratification of Multi-Label
    Data", 2011): the label with the fewest rows that are left is spread first, each row into the
    fold that lacks it most, of equal ones into the fold that lacks most rows, of equal ones into a
    drawn one. Rows without a label fill the folds. A group is spread as a whole; of those with one
    label the ones with most of its rows come first. The order of the labels changes nothing.

    Args:
        labels: 0 or 1, shape (n, n_labels).
        n_splits: Number of folds.
        seed: Seed of the draws.
        groups: Group of each row, shape (n,), none of which is divided; None for rows alone.

    Returns:
        Fold of each row, 0..n_splits-1, shape (n,).
    """
    if groups is None:
        unit_of_row, counts, sizes = np.arange(len(labels)), labels, np.ones(len(labels))
    else:
        _, unit_of_row = np.unique(groups, return_inverse=True)
        sizes = np.bincount(unit_of_row).astype(np.float64)
        counts = np.zeros((len(sizes), labels.shape[1]), np.int64)
        np.add.at(counts, unit_of_row, labels)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(sizes))
    fold_of_unit = np.full(len(sizes), -1, np.int64)
    _spread(counts[order].astype(np.float64), sizes[order], n_splits, rng, fold_of_unit, order)
    folds: Rows = fold_of_unit[unit_of_row]
    return folds


def _spread(
    counts: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.float64],
    n_splits: int,
    rng: np.random.Generator,
    fold_of_unit: Rows,
    order: Rows,
) -> None:
    """Write the fold of each unit, whose numbers are ``order``, into ``fold_of_unit``."""
    # So many rows with each label, and in all, does each fold still lack.
    lacks = np.repeat(counts.sum(axis=0)[None] / n_splits, n_splits, axis=0)
    lacks_rows = np.full(n_splits, sizes.sum() / n_splits)
    waiting = np.ones(len(sizes), dtype=np.bool_)
    remaining = counts.sum(axis=0)
    # Equal labels are told apart by their rows, not by their place.
    ranks = np.empty(counts.shape[1], np.int64)
    ranks[sorted(range(counts.shape[1]), key=lambda k: counts[:, k].tobytes())] = np.arange(
        counts.shape[1]
    )

    def assign(unit: int, wanted: npt.NDArray[np.float64]) -> None:
        best = np.flatnonzero(wanted > wanted.max() - 1e-9)
        best = best[lacks_rows[best] > lacks_rows[best].max() - 1e-9]
        fold = int(best[0] if len(best) == 1 else rng.choice(best))
        fold_of_unit[order[unit]] = fold
        waiting[unit] = False
        lacks[fold] -= counts[unit]
        lacks_rows[fold] -= sizes[unit]
        np.subtract(remaining, counts[unit], out=remaining)

    while (left := remaining > 0).any():
        rarest = min(np.flatnonzero(left), key=lambda k: (remaining[k], ranks[k]))
        units = np.flatnonzero(waiting & (counts[:, rarest] > 0))
        for unit in units[np.lexsort((-sizes[units], -counts[units, rarest]))]:
            assign(int(unit), lacks[:, rarest])
    units = np.flatnonzero(waiting)
    for unit in units[np.argsort(-sizes[units], kind="stable")]:
        assign(int(unit), lacks_rows)
