"""Splitting the labelled photos into folds."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config.project import FoldSettings
from foldsmith.errors import DataError

# A target with more values than this is not a class; it is stratified by its quantiles.
MAX_CLASSES = 20


def strata(targets: pd.Series) -> npt.NDArray[np.int64]:
    """Return the class of each target: its distinct values, or its decile if there are many."""
    values = targets.to_numpy(dtype=np.float64)
    if len(np.unique(values)) > MAX_CLASSES:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, 11)[1:-1]))
        return np.searchsorted(edges, values, side="right").astype(np.int64)
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def assign_folds(
    settings: FoldSettings,
    targets: pd.Series,
    groups: pd.Series | None,
    merged: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Assign a fold to every labelled photo.

    Args:
        settings: Method, number and seed.
        targets: Targets, for the stratified methods.
        groups: Groups, for the group methods: no group ends up in two folds.
        merged: Number of each photo's group, shape (n,), where near-identical photos have joined
            them; it takes the place of ``groups``, for methods without groups too.

    Returns:
        Fold of each row, 0..n_splits-1, shape (n,).

    Raises:
        DataError: Fewer rows, groups or members of every class than folds, or an empty group.
    """
    n = settings.n_splits
    classes = strata(targets)
    if len(targets) < n:
        raise DataError(f"{len(targets)} labelled photos cannot fill {n} folds")
    if "Group" in settings.method:
        if groups is None or groups.isna().any():
            raise DataError(f"{settings.method} needs a group in every row of the train table")
        if groups.nunique() < n:
            raise DataError(
                f"{groups.nunique()} groups cannot fill {n} folds; lower folds/n_splits"
            )
    grouped = "Group" in settings.method
    if merged is not None:
        groups, grouped = pd.Series(merged), True
        if groups.nunique() < n:
            raise DataError(
                f"{groups.nunique()} groups are left when near-identical photos share one, too "
                f"few for {n} folds; lower folds/n_splits or folds/merge_near_duplicates: false"
            )
    smallest = int(np.bincount(classes).min())
    if "Stratified" in settings.method and smallest < n:
        raise DataError(
            f"a class has {smallest} members, fewer than {n} folds; lower folds/n_splits or "
            "use a method that is not stratified"
        )
    # Here, not above: only `preprocess` splits, and scikit-learn takes half a second to import.
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    stratified = "Stratified" in settings.method
    splitter: KFold | StratifiedKFold | GroupKFold | StratifiedGroupKFold
    if grouped:
        splitter = StratifiedGroupKFold(n) if stratified else GroupKFold(n)
    elif stratified:
        splitter = StratifiedKFold(n, shuffle=True, random_state=settings.seed)
    else:
        splitter = KFold(n, shuffle=True, random_state=settings.seed)
    folds = np.full(len(targets), -1, dtype=np.int64)
    labels = _shuffled(groups, settings) if grouped and groups is not None else None
    for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(targets)), classes, labels)):
        folds[rows] = fold
    empty = sorted(set(range(n)) - set(folds))
    if empty:
        raise DataError(f"{settings.method} left fold {empty[0]} empty; lower folds/n_splits")
    return folds


def _shuffled(groups: pd.Series, settings: FoldSettings) -> npt.NDArray[np.int64]:
    """Number the groups in an order drawn from the seed.

    StratifiedGroupKFold takes equal groups in the order of their labels, so that shuffled
    labels shuffle the folds, alike in every version of scikit-learn. Its own ``shuffle`` does
    not: with 1.7.2 the class shares of 4,000 rows were 6 points apart, with 1.9.1 under 1.
    """
    _, numbers = np.unique(groups.astype(str).to_numpy(), return_inverse=True)
    order = np.random.default_rng(settings.seed).permutation(int(numbers.max()) + 1)
    shuffled: npt.NDArray[np.int64] = order[numbers]
    return shuffled
