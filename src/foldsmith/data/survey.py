"""Looking at data that nothing is known of yet: which photos, ids, targets and groups there are."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config.project import FoldMethod, FoldSettings
from foldsmith.data.folds import MAX_CLASSES, assign_folds, strata
from foldsmith.data.images import image_values
from foldsmith.data.tables import numbers
from foldsmith.errors import DataError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")

# Words of a column's name by which it is taken for a target or for a group.
TARGET_WORDS = ("target", "label", "class", "score", "grade")
GROUP_WORDS = ("group", "patient", "series", "subject", "object")

# A target with more values is continuous; classes of its project are steps of its range.
_CONTINUOUS_CLASSES = 4

# Text that pandas reads as a gap, in numbers and groups (as the name of a class it may stand).
_GAPS = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A", "-nan")

# Numbers with a comma for the decimal point; of three digits after it, it may stand for thousands.
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS_OR_NOT = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
# Numbers in groups of three digits, which are no numbers to any reader.
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}([.,' \u00a0\u202f]\d{3})+([.,]\d+)?")

# Photos whose size is looked at.
_SAMPLE = 20

# Folders that are parts of a data set, not classes of it.
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}


class PhotoFolder:
    """The photos below a folder, hidden ones and linked folders left out.

    Args:
        folder: The folder.
        flag: Its name on the command line, for messages.

    Attributes:
        folder: The folder, absolute; links in its path stay.
        names: Path of each photo in it, with ``/``, sorted.

    Raises:
        DataError: There is no such folder, or no photo in it.
    """

    def __init__(self, folder: Path, flag: str = "--images") -> None:
        self.folder = Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise DataError(f"{flag}: {folder}: no such folder")
        self.names = sorted(self._walk())
        if not self.names:
            kinds = ", ".join(suffix[1:] for suffix in PHOTO_SUFFIXES)
            raise DataError(f"{flag}: {folder}: holds no photos ({kinds})")
        self._whole: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        self._tails: dict[str, list[str]] = {}
        for name in self.names:
            self._whole.setdefault(_lower_suffix(name), []).append(name)
            self._stems.setdefault(without_suffix(name), []).append(name)
            parts = name.split("/")
            for start in range(1, len(parts)):
                tail = "/".join(parts[start:])
                for key in {_lower_suffix(tail), without_suffix(tail)}:
                    self._tails.setdefault(key, []).append(name)

    def _walk(self) -> Iterator[str]:
        for folder, inner, files in os.walk(self.folder):
            inner[:] = [name for name in inner if not name.startswith((".", "__MACOSX"))]
            below = Path(folder).relative_to(self.folder)
            for name in files:
                if not name.startswith(".") and name.lower().endswith(PHOTO_SUFFIXES):
                    yield (below / name).as_posix()

    def find(self, text: str) -> list[str]:
        r"""Return the photos that a text names; more than one if it is ambiguous.

        A text may be the path in the folder, with or without suffix (upper or lower case); the
        same with further folders before it, as in ``data/images/cats/1.jpg`` for the folder
        ``data/images``; or the last part of a path, as in ``1`` for ``cats/1.jpg``. It may
        have ``\`` for ``/``. The whole path goes before its last part.
        """
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if not parts:
            return []
        own = self.folder.parts
        for start in range(len(parts)):
            if start and tuple(parts[:start]) != own[-start:]:
                continue
            path = "/".join(parts[start:])
            alike = self._whole.get(_lower_suffix(path))
            if alike:
                return [path] if path in alike else alike
            if path in self._stems:
                return self._stems[path]
        return self._tails.get(_lower_suffix("/".join(parts)), [])

    def sides(self) -> tuple[int, int] | None:
        """Return the shortest and the longest side of some photos; None if none is readable."""
        sides: list[int] = []
        for name in self.names[:: -(-len(self.names) // _SAMPLE)]:
            try:
                sides += image_values(self.folder / name).shape[:2]
            except DataError:
                continue  # preprocess will say so
        return (min(sides), max(sides)) if sides else None


def without_suffix(name: str) -> str:
    """Return the path of a photo without the suffix; other texts stay as they are."""
    return name[: -len(PurePosixPath(name).suffix)] if has_suffix(name) else name


def has_suffix(name: str) -> bool:
    """Return whether a text ends like a photo."""
    return PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES


def _lower_suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return without_suffix(name) + suffix.lower() if has_suffix(name) else name


@dataclass(frozen=True)
class Guess:
    """What a column is taken for.

    Attributes:
        column: Name of the column; None for none.
        why: Why, in a few words.
        others: What else it could be; if there is something, a person should be asked.
    """

    column: str | None
    why: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A table that is looked at.

    Attributes:
        table: Every value a text.
        file: Where it comes from, for messages.
    """

    table: pd.DataFrame
    file: Path

    def has(self, column: str, flag: str) -> None:
        """Make sure that there is a column.

        Raises:
            DataError: There is not.
        """
        if column not in self.table.columns:
            raise DataError(
                f"{self.file}: no column {column!r} for {flag} "
                f"(it has: {', '.join(self.table.columns)})"
            )


def guess_id(source: Source, photos: PhotoFolder) -> Guess:
    """Choose the id column: the one whose values name the most photos.

    Values name photos as :meth:`PhotoFolder.find` says. Of columns that name equally many, one
    without repeats wins, then the first.

    Raises:
        DataError: No column names a photo.
    """
    best, most = "", (0, False)
    for name in source.table.columns:
        values = source.table[name].unique()
        if len(values) < most[0]:
            continue
        found = {photo for value in values for photo in photos.find(value)[:1]}
        rank = len(found), len(values) == len(source.table)
        if rank[0] and rank > most:
            best, most = name, rank
    if not best:
        columns = _listed([f"{name} {values.iloc[0]!r}" for name, values in source.table.items()])
        texts = (value for name in source.table for value in source.table[name].unique())
        raise DataError(
            f"{source.file}: no column names photos of {photos.folder}, which are called "
            f"{_listed(photos.names)} (the first row has {columns}); "
            f"{_lost_zeros(texts, photos)}check --images, or write the names of the photos into a "
            "column"
        )
    return Guess(best, f"names {most[0]:,} photos")


def locate(source: Source, column: str, photos: PhotoFolder) -> list[str]:
    """Return the photo of each row, as its path in the photo folder.

    Args:
        source: The table.
        column: Its id column.
        photos: The photos.

    Raises:
        DataError: One line per problem: ids that are empty, stand twice, name no photo or
            several.
    """
    ids = source.table[column]
    found = [photos.find(value) for value in ids]
    missing = [value for value, names in zip(ids, found, strict=True) if value and not names]
    several = [(v, names) for v, names in zip(ids, found, strict=True) if len(names) > 1]
    twice = ids[ids.duplicated() & (ids != "")].unique().tolist()
    empty = int((ids == "").sum())
    problems = []
    if empty:
        problems.append(f"{empty} rows have no id; fill them in or take the rows out")
    if twice:
        problems.append(
            f"{len(twice)} ids stand more than once: {_listed(twice)}; leave one row each"
        )
    if missing:
        problems.append(
            f"{len(missing)} of {len(ids)} rows name photos that are not in {photos.folder}: "
            f"{_listed(missing)}; {_lost_zeros(missing, photos)}add the photos, take the rows out, "
            "or name another column with --id"
        )
    if several:
        value, names = several[0]
        problems.append(
            f"{len(several)} ids name several photos, as {value} does: {_listed(names)}; write "
            "their paths into the table, or name the folder of these photos alone with --images "
            "(and that of the photos to predict with --test-images)"
        )
    if problems:
        raise DataError("\n".join(f"{source.file}: column {column}: {p}" for p in problems))
    return [names[0] for names in found]


def _lost_zeros(ids: Iterable[str], photos: PhotoFolder) -> str:
    """Return advice if ids are numbers of photos without their leading zeros; else nothing."""
    stems = (without_suffix(name).split("/")[-1] for name in photos.names)
    padded = {stem.lstrip("0") or "0": stem for stem in stems if stem.isdecimal()}
    for value in ids:
        photo = padded.get(value)
        if photo is not None and photo != value:
            return (
                f"the table has lost the zeros of {photo}, as a spreadsheet does (save the column "
                "as text); "
            )
    return ""


def class_folders(photos: PhotoFolder) -> pd.DataFrame:
    """Return a table of photos that lie in one folder per class.

    Returns:
        Columns photo_id (the path of the photo) and class (the first folder of it), as text.

    Raises:
        DataError: There are not at least two folders, photos lie beside them, or the folders
            are parts of a data set.
    """
    where = f"--images: {photos.folder}"
    beside = [name for name in photos.names if "/" not in name]
    classes = sorted({name.split("/")[0] for name in photos.names if "/" in name})
    if {name.lower() for name in classes} <= _PARTS and classes:
        raise DataError(
            f"{where}: holds {_listed(classes)}, which are no classes; name the folder of the "
            "labelled photos with --images, and that of the photos to predict with --test-images"
        )
    if beside or len(classes) < 2:
        what = f"photos such as {beside[0]} lie in no folder" if beside else "there is only one"
        raise DataError(
            f"{where}: without --train it must hold one folder per class, but {what}; name a table "
            "of ids and targets with --train"
        )
    return pd.DataFrame(
        {"photo_id": photos.names, "class": [name.split("/")[0] for name in photos.names]},
        dtype=object,
    )


def guess_target(source: Source, id_column: str, test_columns: Iterable[str]) -> Guess:
    """Choose the target column.

    Columns count that vary, are not the id, are not called like a group, and hold numbers (other
    than those of the rows) or texts that repeat; if any of them are not in the test table, only
    those. Of these, in this order: one called like :data:`TARGET_WORDS` (or ``y``); the last one
    of numbers with at most 20 values; the last one of numbers; the last one of text.

    A person should be asked if several are called so, or none is and several are left.

    Args:
        source: The table of the labelled photos.
        id_column: Its id column.
        test_columns: Columns of the test table.

    Raises:
        DataError: No column is left.
    """
    facts = {
        name: _Facts.of(source.table[name])
        for name in source.table.columns
        if name != id_column and not name.startswith("Unnamed:")
    }
    pool = [name for name, fact in facts.items() if fact.may_be_target and not _like_group(name)]
    known = set(test_columns)
    pool = [name for name in pool if name not in known] or pool
    if not pool:
        raise DataError(
            f"{source.file}: no column looks like a target (it has: "
            f"{', '.join(source.table.columns)}); name it with --target"
        )

    def rank(name: str) -> tuple[bool, bool, bool, int]:
        fact = facts[name]
        last = -pool.index(name)
        return not _like_target(name), not fact.numeric, fact.distinct > MAX_CLASSES, last

    ordered = sorted(pool, key=rank)
    named = [name for name in ordered if _like_target(name)]
    best = facts[ordered[0]]
    kind = "numbers" if best.numeric else "text"
    why = f"{kind}, {best.distinct:,} values"
    if named:
        why += ", called like a target"
    elif len(pool) > 1:
        why += f", the last such column of {len(pool)}"
    sure = len(pool) == 1 or len(named) == 1
    return Guess(ordered[0], why, () if sure else tuple(ordered[1:]))


def guess_group(source: Source, id_column: str, target_column: str) -> Guess:
    """Choose the group column, whose equal values must stay in one fold; or none.

    Columns count that are neither id nor target, have no gaps, and repeat: those called like
    :data:`GROUP_WORDS`, then those whose name ends in ``_id``. Not one that says the same as
    the target. Of several the first is taken, and a person should be asked.

    Args:
        source: The table of the labelled photos.
        id_column: Its id column.
        target_column: Its target column.
    """
    found = []
    for name in source.table.columns:
        if name in (id_column, target_column) or not _like_group(name):
            continue
        values = source.table[name]
        n_groups = values.nunique()
        if values.isin(_GAPS).any() or not 2 <= n_groups < len(values):
            continue
        targets = source.table[target_column]
        of_each = targets.groupby(values).nunique()
        if of_each.max() == 1 and n_groups == targets.nunique():
            continue
        found.append(name)
    found.sort(key=lambda name: not _named_like(name, GROUP_WORDS))
    if not found:
        return Guess(None, "no column called like a group has values that repeat")
    count = source.table[found[0]].nunique()
    return Guess(found[0], f"{count:,} values, photos of one stay in one fold", tuple(found[1:]))


def check_group(source: Source, column: str) -> None:
    """Make sure that a column can be the group.

    Raises:
        DataError: It has gaps or a single value.
    """
    values = source.table[column]
    gaps = values.isin(_GAPS)
    if gaps.any():
        raise DataError(
            f"{source.file}: column {column}: {gaps.sum()} rows have no group; fill them in, or "
            "choose another with --group (none: every photo stands alone)"
        )
    if values.nunique() < 2:
        raise DataError(
            f"{source.file}: column {column}: all rows are of one group, which cannot be split; "
            "choose another with --group (none: every photo stands alone)"
        )


@dataclass(frozen=True)
class Target:
    """The target as the project needs it.

    Attributes:
        values: Number of each row, float64, shape (n,).
        range: Lowest and highest.
        n_classes: Classes, when it is treated as such.
        class_values: Their values; empty if they are evenly spaced over the range.
        classes: Texts that the numbers 0, 1, ... stand for; empty if it holds numbers.
    """

    values: npt.NDArray[np.float64]
    range: tuple[float, float]
    n_classes: int
    class_values: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def few(self) -> bool:
        """Whether the values are classes: texts, or at most 20 numbers."""
        return bool(self.classes) or len(np.unique(self.values)) <= MAX_CLASSES


def examine_target(source: Source, column: str, id_column: str) -> Target:
    """Turn the target column into numbers.

    Numbers stay as they are; their decimal point may be a comma. With at most 20 values they are
    classes: the values if those are evenly spaced, else all integers between them if those are at
    most 20, else the values as they are. With more values the target is continuous, and has four
    classes evenly spaced over the range, for whatever needs some. Text becomes 0, 1, ... in
    alphabetical order (``grade 2`` before ``grade 10``).

    Args:
        source: The table of the labelled photos.
        column: Its target column.
        id_column: Its id column, for messages.

    Raises:
        DataError: Rows have no target, it does not vary, its texts hardly repeat, or its numbers
            are written so that they may mean several.
    """
    text = source.table[column]
    _refuse_separators(source, column)
    numeric = _Facts.of(text).numeric
    values = _finite(text)
    gaps = values.isna() if numeric else text.str.strip() == ""
    if gaps.any():
        rows = source.table[id_column][gaps].tolist()
        raise DataError(
            f"{source.file}: column {column}: {len(rows)} rows have no "
            f"{'number' if numeric else 'text'}, those of {_listed(rows)}; fill them in, take the "
            "rows out, or name another column with --target"
        )
    distinct = text.nunique() if not numeric else values.nunique()
    if distinct < 2:
        raise DataError(
            f"{source.file}: column {column}: has the same value in every row, which is nothing to "
            "learn; name another column with --target"
        )
    if not numeric:
        if distinct > max(2, len(text) // 2):
            raise DataError(
                f"{source.file}: column {column}: {distinct} texts in {len(text)} rows are no "
                "classes; name another column with --target"
            )
        classes = sorted(text.unique(), key=_natural)
        numbered = text.map({name: k for k, name in enumerate(classes)}).to_numpy(np.float64)
        return Target(numbered, (0.0, distinct - 1.0), distinct, classes=tuple(classes))
    unique = np.unique(values.to_numpy())
    low, high = float(unique[0]), float(unique[-1])
    n_classes, class_values = len(unique), tuple(unique.tolist())
    if len(unique) > MAX_CLASSES:
        n_classes, class_values = _CONTINUOUS_CLASSES, ()
    elif np.allclose(np.diff(unique), (high - low) / (len(unique) - 1)):
        class_values = ()
    elif (unique == unique.round()).all() and high - low < MAX_CLASSES:
        n_classes, class_values = int(high - low) + 1, ()
    return Target(values.to_numpy(), (low, high), n_classes, class_values)


def _refuse_separators(source: Source, column: str) -> None:
    """Make sure that numbers have no separators that may mean several things."""
    text = source.table[column]
    present = text[~text.isin(_GAPS)].str.strip()
    grouped = present[present.str.fullmatch(_GROUPED) & numbers(present).isna()]
    commas = present[present.str.fullmatch(_DECIMAL_COMMA)]
    unclear = len(commas) > 0 and bool(commas.str.fullmatch(_THOUSANDS_OR_NOT).all())
    others = grouped if unclear else grouped[~grouped.isin(commas)]
    if len(commas) and not len(others):
        # Beside decimal commas a point may be one of thousands.
        others = present[present.str.contains(".", regex=False)]
    n_numbers = int(numbers(present).notna().sum()) + len(commas.index.union(grouped.index))
    if len(others) and n_numbers * 10 >= 9 * len(present):
        raise DataError(
            f"{source.file}: column {column}: numbers such as {others.iloc[0]} may be read in "
            "several ways; write them without separators of thousands and with a decimal point, "
            "or name another column with --target"
        )


def choose_folds(targets: npt.NDArray[np.float64], groups: pd.Series | None) -> FoldSettings:
    """Choose how to split: stratified in five folds, or what the data bears.

    Fewer folds, down to three, if a class has fewer members (with fewer than three it is in some
    folds only, however few there are) or there are fewer groups; a method that is not stratified
    where that does not help; two folds at last.

    Args:
        targets: Shape (n,).
        groups: Group of each row, if there are groups.

    Raises:
        DataError: The rows cannot be split at all.
    """
    stratified: FoldMethod = "StratifiedKFold" if groups is None else "StratifiedGroupKFold"
    plain: FoldMethod = "KFold" if groups is None else "GroupKFold"
    column = pd.Series(targets)
    smallest = int(np.bincount(strata(column, 3)).min())
    enough = [n for n in (5, 4, 3) if n <= smallest or smallest < 3]
    tries = [(stratified, n) for n in enough] + [(plain, n) for n in (5, 4, 3, 2)]
    for method, n_splits in tries:
        settings = FoldSettings(method=method, n_splits=n_splits)
        try:
            assign_folds(settings, column, groups)
        except DataError as error:
            reason = error
        else:
            return settings
    raise DataError(f"the labelled photos cannot be split: {reason}")


def ids_of(photos: PhotoFolder, prefix: str, train_ids: Iterable[str]) -> list[str]:
    """Return ids for photos that no table names, in the manner of other ids.

    Names, or paths if names repeat or are ids of the others already; with a suffix if those
    have one.

    Args:
        photos: The photos.
        prefix: Folder to put before paths that would be ids of the others.
        train_ids: The ids of the labelled photos.
    """
    taken = set(train_ids)
    shown: Callable[[str], str] = str if any(map(has_suffix, taken)) else without_suffix
    paths = [shown(name) for name in photos.names]
    names = [path.split("/")[-1] for path in paths]
    for ids in (names, paths, photos.names):
        if len(set(ids)) == len(ids) and not taken & set(ids):
            return ids
    return [f"{prefix}/{name}" for name in photos.names]


@dataclass(frozen=True)
class _Facts:
    """What a column of text holds.

    Attributes:
        numeric: Numbers, but for one in ten at most.
        distinct: Different values.
        may_be_target: It varies, and holds numbers (not those of the rows) or texts that repeat.
    """

    numeric: bool
    distinct: int
    may_be_target: bool

    @classmethod
    def of(cls, column: pd.Series) -> "_Facts":
        present = column[~column.isin(_GAPS)]
        found = _finite(present)
        numeric = len(present) > 0 and int(found.isna().sum()) * 10 <= len(present)
        distinct = int(found.nunique() if numeric else present.nunique())
        useful = distinct <= max(2, len(present) // 2)
        if numeric:
            useful = not _counts_rows(found)
        return cls(numeric, distinct, distinct > 1 and useful)


def _counts_rows(values: pd.Series) -> bool:
    """Return whether numbers are a row number: integers one after another, in any order."""
    steps = np.diff(np.sort(values.to_numpy()))
    return len(steps) > 1 and bool((steps == 1).all())


def _finite(column: pd.Series) -> pd.Series:
    """Return the numbers of a column of text, with points or commas for decimals."""
    plain = column.str.strip()
    with_commas = plain.str.fullmatch(_DECIMAL_COMMA)
    values = numbers(plain.where(~with_commas, plain.str.replace(",", ".", regex=False)))
    return values.where(np.isfinite(values))


def _words(name: str) -> list[str]:
    """Return the words of a column's name, in lower case: ``PatientID`` is patient, id."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def _named_like(name: str, words: Sequence[str]) -> bool:
    known = {form for word in words for form in (word, f"{word}s", f"{word}id")}
    return bool(known & set(_words(name)))


def _like_target(name: str) -> bool:
    return _named_like(name, TARGET_WORDS) or name.lower() == "y"


def _like_group(name: str) -> bool:
    words = _words(name)
    ends_in_id = len(words) > 1 and words[-1] == "id"
    return not _like_target(name) and (ends_in_id or _named_like(name, GROUP_WORDS))


def _natural(text: str) -> list[tuple[int, str]]:
    """Return what text is sorted by: numbers in it by their value."""
    return [
        (int("".join(part)), "") if digits else (0, "".join(part).casefold())
        for digits, part in groupby(text, lambda char: char in "0123456789")
    ] + [(0, text)]


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:3]) + (", ..." if len(values) > 3 else "")
