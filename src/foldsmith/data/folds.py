"""Splitting the labelled images into folds."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.data.label_folds import iterative_folds
from foldsmith.errors import DataError
from foldsmith.project.settings import FoldSettings
from foldsmith.utils.formatting import brief, counted

# A target with more values than this may be continuous.
MAX_CLASSES = 20

# Bins of a continuous target, each with about as many rows.
_BINS = 10

# Classes that a line names.
_LISTED = 10

# With fewer groups a score out of fold is rough.
_FEW_GROUPS = 10

Rows = npt.NDArray[np.int64]


def few_groups_warning(n_groups: int) -> str | None:
    """Return a sentence on scores of few groups; None if there are enough.

    Images of a group err alike, so that a score is a mean of as many numbers as there are groups.
    ``docs/stages.md`` has measurements of how far it is off.

    Args:
        n_groups: Number of groups of labelled images.
    """
    if n_groups >= _FEW_GROUPS:
        return None
    return (
        f"only {counted(n_groups, 'group')}: scores out of fold are rough, often wrong by a tenth "
        "or more, and do not tell similar models apart; images of further groups help more than "
        "further images of these"
    )


def strata(
    targets: pd.Series | npt.NDArray[np.float64], n_splits: int, classes: bool = False
) -> Rows:
    """Return the stratum of each row, numbered from 0 on, int64, shape (n,).

    A stratum is a value of the target where the values are classes, are few, or have all at
    least as many rows as there are folds. Otherwise it is one of ten bins with equally many rows,
    or of fewer, so that each has as many rows as there are folds.

    Args:
        targets: Numbers, shape (n,).
        n_splits: Number of folds.
        classes: Whether each value is a class, however many there are.
    """
    values = np.asarray(targets, dtype=np.float64)
    distinct, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
    if classes or len(distinct) <= MAX_CLASSES or counts.min() >= n_splits:
        return numbers.astype(np.int64)
    n_bins = min(_BINS, max(1, len(values) // n_splits))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def assign_folds(
    settings: FoldSettings,
    targets: pd.Series | npt.NDArray[np.float64],
    groups: pd.Series | None,
    merged: Rows | None = None,
    classes: bool = False,
) -> Rows:
    """Assign a fold to every labelled image.

    Without groups, the images of each class (or bin of a continuous target) in two folds of a
    stratified method differ by at most one in number. A class with fewer images than folds is in
    some folds only: see :meth:`ClassSizes.warning`.

    Args:
        settings: Method, number and seed.
        targets: Targets, for the stratified methods, shape (n,); or labels of 0 and 1, shape (n,
            n_labels), which are spread by :func:`~foldsmith.data.label_folds.iterative_folds`.
        groups: Groups, for the group methods: no group ends up in two folds.
        merged: Number of each image's group, shape (n,), where near-identical images have joined
            them; it takes the place of ``groups``, for methods without groups too.
        classes: Whether each value of the target is a class, however many there are.

    Returns:
        Fold of each row, 0..n_splits-1, shape (n,).

    Raises:
        DataError: Fewer rows or groups than folds, or an empty group.
    """
    n = settings.n_splits
    if len(targets) < n:
        raise DataError(f"{counted(len(targets), 'labelled image')} cannot fill {n} folds")
    if "Group" in settings.method:
        if groups is None or (groups.isna() | (groups.astype(str).str.strip() == "")).any():
            raise DataError(f"{settings.method} needs a group in every row of the train table")
        if groups.nunique() < n:
            raise DataError(
                f"{counted(groups.nunique(), 'group')} cannot fill {n} folds; lower folds/n_splits"
            )
    grouped = "Group" in settings.method
    if merged is not None:
        groups, grouped = pd.Series(merged), True
        if groups.nunique() < n:
            raise DataError(
                f"{counted(groups.nunique(), 'group is', 'groups are')} left when "
                f"near-identical images share one, too "
                f"few for {n} folds; lower folds/n_splits or folds/merge_near_duplicates: false"
            )
    stratified = "Stratified" in settings.method
    labels = _shuffled(groups, settings) if grouped and groups is not None else None
    values = np.asarray(targets, dtype=np.float64)
    if stratified and values.ndim == 2:
        folds = iterative_folds(values.astype(np.int64), n, settings.seed, labels)
    else:
        strata_of = strata(values, n, classes) if values.ndim == 1 else np.zeros(len(values), int)
        folds = _split(settings, stratified, strata_of, labels)
    empty = sorted(set(range(n)) - set(folds.tolist()))
    if empty:
        raise DataError(f"{settings.method} left fold {empty[0]} empty; lower folds/n_splits")
    return folds


def _split(settings: FoldSettings, stratified: bool, classes: Rows, groups: Rows | None) -> Rows:
    """Return the fold of each row by scikit-learn's splitters, shape (n,)."""
    # Here, not above: only `preprocess` splits, and scikit-learn takes half a second to import.
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    n, n_rows = settings.n_splits, len(classes)
    splitter: KFold | StratifiedKFold | GroupKFold | StratifiedGroupKFold
    if groups is not None:
        splitter = StratifiedGroupKFold(n) if stratified else GroupKFold(n)
    elif stratified:
        splitter = StratifiedKFold(n, shuffle=True, random_state=settings.seed)
    else:
        splitter = KFold(n, shuffle=True, random_state=settings.seed)
    if stratified and np.bincount(classes).max() < n:
        # scikit-learn refuses where every class has fewer rows than folds. One more class with a
        # row for each fold, at the end, lets it go on.
        classes = np.append(classes, np.full(n, classes.max() + 1))
        if groups is not None:
            groups = np.append(groups, groups.max() + 1 + np.arange(n))
    folds = np.full(len(classes), -1, dtype=np.int64)
    with warnings.catch_warnings():
        # Of classes with fewer rows than folds, and of many classes: both are allowed here.
        warnings.simplefilter("ignore", UserWarning)
        for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(classes)), classes, groups)):
            folds[rows] = fold
    return folds[:n_rows]


def _shuffled(groups: pd.Series, settings: FoldSettings) -> Rows:
    """Number the groups in an order drawn from the seed.

    StratifiedGroupKFold takes equal groups in the order of their labels, so that shuffled
    labels shuffle the folds, alike in every version of scikit-learn. Its own ``shuffle`` does
    not: with 1.7.2 the class shares of 4,000 rows were 6 points apart, with 1.9.1 under 1.
    """
    _, numbers = np.unique(groups.astype(str).to_numpy(), return_inverse=True)
    order = np.random.default_rng(settings.seed).permutation(int(numbers.max()) + 1)
    shuffled: Rows = order[numbers]
    return shuffled


@dataclass(frozen=True)
class OwnFolds:
    """Folds that a column of the train table has given.

    Attributes:
        folds: Fold of each row, 0..n_splits-1, int64, shape (n,).
        n_splits: Number of folds.
        first: Number that the column gives to fold 0: 0 or 1.
    """

    folds: Rows
    n_splits: int
    first: int


def own_folds(column: pd.Series) -> OwnFolds:
    """Read the folds of a column: whole numbers from 0 or from 1 on, without a gap.

    Args:
        column: Numbers or texts of numbers, shape (n,).

    Raises:
        DataError: A row has no fold or none that is a whole number, a number is left out, or
            there is one fold alone.
    """
    texts = column.map(lambda value: "" if pd.isna(value) else str(value).strip())
    numbers = pd.to_numeric(texts, errors="coerce")
    whole = numbers.notna() & (numbers % 1 == 0)
    if not whole.all():
        missing = (texts == "").sum()
        what = f"{counted(missing, 'row has', 'rows have')} no fold" if missing else ""
        wrong = list(dict.fromkeys(texts[~whole & (texts != "")]))
        if wrong:
            named = ", ".join(map(brief, wrong[:3])) + (", ..." if len(wrong) > 3 else "")
            what += f"{' and ' if what else ''}{named} {'is' if len(wrong) == 1 else 'are'} no fold"
        raise DataError(f"{what}; folds are whole numbers from 0 (or from 1) on")
    found = sorted(set(numbers.astype(np.int64)))
    first = found[0]
    if first not in (0, 1):
        raise DataError(f"the first fold is {first}; folds are whole numbers from 0 (or 1) on")
    gaps = sorted(set(range(first, min(found[-1], first + len(found)) + 1)) - set(found))
    if gaps:
        raise DataError(
            f"no row is in fold {gaps[0]}, but rows are in fold {found[-1]}; folds are whole "
            "numbers without a gap"
        )
    if len(found) < 2:
        raise DataError("all rows are in one fold; there must be two or more")
    return OwnFolds(numbers.to_numpy(np.int64) - first, len(found), int(first))


def torn_groups(folds: Sequence[int] | Rows, groups: pd.Series) -> list[str]:
    """Return the groups that lie in several folds, in alphabetical order."""
    folds_of = pd.Series(np.asarray(folds)).groupby(groups.astype(str).to_numpy()).nunique()
    return [str(group) for group in folds_of.index[folds_of > 1]]


@dataclass(frozen=True)
class ClassSizes:
    """How many labelled images each class has.

    Attributes:
        sizes: Name of each class -> its images, in the order of the classes.
        kind: What they are, in the plural: classes, or labels, of which an image has several.
    """

    sizes: dict[str, int]
    kind: str = "classes"

    @classmethod
    def of(cls, labels: Iterable[object], names: Iterable[str] | None = None) -> "ClassSizes":
        """Count classes.

        Args:
            labels: Class of each image.
            names: All classes in their order, those without an image too; None for the classes
                that there are, sorted.
        """
        counts = pd.Series(list(labels), dtype=object).value_counts()
        order = sorted(counts.index) if names is None else names
        return cls({str(name): int(counts.get(name, 0)) for name in order})

    @property
    def smallest(self) -> int:
        """Images of the smallest class."""
        return min(self.sizes.values())

    def summary(self) -> str:
        """Return the numbers of images on one line, of many classes the smallest and largest."""
        n = len(self.sizes)
        if n <= _LISTED:
            return f"{n} {self.kind}: {_named(self.sizes.items())}"
        ordered = sorted(self.sizes.items(), key=lambda item: item[1])
        return (
            f"{n:,} {self.kind} of {ordered[0][1]:,} to {ordered[-1][1]:,} images (fewest: "
            f"{_named(ordered[:3])}; most: {_named(ordered[:-4:-1])})"
        )

    def imbalance(self, n_images: int) -> str | None:
        """Return a sentence on the rarest class and a key that may help it; None if none is rare.

        A class is rare if another has more than four times its images; a label, if fewer than a
        tenth of the images have it.

        Args:
            n_images: Number of images.
        """
        name, fewest = min(self.sizes.items(), key=lambda item: item[1])
        most, one = max(self.sizes.values()), self._one
        rare = 10 * fewest < n_images if one == "label" else 4 * fewest < most
        if not rare:
            return None
        return (
            f"the rarest {one}, {brief(name.removesuffix(':'))}, has {fewest:,} of {n_images:,} "
            f"images ({fewest / n_images:.1%}): if rare {self.kind} are to count like others, try "
            "class_weights: balanced in project.yml (docs: Weights and imbalance)"
        )

    @property
    def _one(self) -> str:
        return {"classes": "class", "labels": "label"}[self.kind]

    def warning(self, n_splits: int) -> str | None:
        """Return a sentence on classes with fewer images than there are folds; None without such.

        Args:
            n_splits: Number of folds.
        """
        small = sorted(
            (item for item in self.sizes.items() if item[1] < n_splits), key=lambda item: item[1]
        )
        if not small:
            return None
        more = f", and {len(small) - _LISTED:,} more" if len(small) > _LISTED else ""
        one = self._one
        have = f"{one} has" if len(small) == 1 else f"{self.kind} have"
        text = (
            f"{len(small):,} {have} fewer images than the {n_splits} folds, so that some folds "
            f"have none of them: {_named(small[:_LISTED])}{more}"
        )
        if small[0][1] <= 1:
            text += f"; a {one} with a single image is judged by models that have never seen it"
        return text


def _named(sizes: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{brief(name)} {size:,}" for name, size in sizes)
