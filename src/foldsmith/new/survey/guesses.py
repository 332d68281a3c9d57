"""Which columns are the id, the target and the group: evidence of all kinds, then a choice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from foldsmith.data.folds import MAX_CLASSES
from foldsmith.errors import DataError
from foldsmith.new.survey.columns import (
    GROUP_WORDS,
    ColumnFacts,
    Guess,
    Source,
    called_like_id,
    called_like_index,
    is_sequence,
    is_unnamed,
    like_group,
    named_like,
    target_rank,
)
from foldsmith.new.survey.images import ImageFolder, is_from_root
from foldsmith.new.survey.values import GAPS
from foldsmith.project.image_files import has_suffix, without_suffix
from foldsmith.project.tables import FOLD_COLUMN
from foldsmith.utils.formatting import counted

# Values of a column that are tried before all are.
_TRIED = 200
# Names in this share of the rows have the suffix of an image, or name an image.
_MOST = 0.9


@dataclass(frozen=True)
class _IdColumn:
    """A column that names images.

    Attributes:
        name: Its name.
        images: The first image that each row names; None for a row that names none.
        files: Its values end like files, as ``1.jpg`` does.
        index: It counts the rows in their order, and is called so or has no name.
        called: How usual its name is for ids, 0 to 2.
        in_test: The test table has it too, or there is no test table.
        unique: No value stands twice.
    """

    name: str
    images: list[str | None]
    files: bool
    index: bool
    called: int
    in_test: bool
    unique: bool

    @property
    def found(self) -> int:
        """Number of images that it names."""
        return len(set(self.images) - {None})

    @property
    def strength(self) -> tuple[bool, bool, bool, int, int]:
        """Return the sort key of a column; the likeliest sorts last."""
        return self.files, not self.index, self.in_test, self.called, self.found

    def contradicts(self, other: "_IdColumn") -> bool:
        """Return whether it names another image than ``other`` in some row."""
        pairs = zip(self.images, other.images, strict=True)
        return any(one != two for one, two in pairs if one is not None and two is not None)

    def is_beyond(self, other: "_IdColumn") -> bool:
        """Return whether it is so much likelier that ``other`` need not be thought of."""
        return (self.files and not other.files) or (other.index and not self.index)


def guess_id(
    source: Source, images: ImageFolder, test_columns: Iterable[str] | None = None
) -> Guess:
    """Choose the id column: one that names images, and almost never one twice.

    Values name images as :meth:`ImageFolder.find` says. Columns that name the same images in all
    rows do not contradict each other; of them one goes first that the test table has and that is
    called like an id. Of columns that contradict each other, one of file names goes before
    numbers, and the index that pandas writes comes last; else a person should be asked.

    Args:
        source: The table of the labelled images.
        images: The images.
        test_columns: Columns of the test table, if there is one.

    Raises:
        DataError: No column names an image, or the first line has values rather than names.
    """
    _refuse_values_as_names(source, images)
    named = (_names(source, name, images, test_columns) for name in source.table.columns)
    columns = [column for column in named if column is not None]
    most = max((column.found for column in columns), default=0)
    columns = sorted((c for c in columns if c.found * 2 >= most), key=lambda c: c.strength)
    if not columns:
        raise DataError(_no_id(source, images))
    best = columns[-1]
    unclear = [c for c in columns[:-1] if c.contradicts(best) and not best.is_beyond(c)]
    if unclear:
        best, *unclear = sorted([best, *unclear[::-1]], key=lambda c: -c.called)
    else:
        same = [c for c in columns if not c.contradicts(best) and c.found == best.found]
        best = max(same, key=lambda c: (c.unique, c.in_test, c.called, not c.index))
    why = f"names {counted(best.found, 'image')}"
    if any(is_from_root(text) for text in source.table[best.name].head(1)):
        why += " (by the ends of its paths)"
    preferred = all(best.called > other.called for other in unclear)
    return Guess(best.name, why, tuple(other.name for other in unclear), preferred)


def _names(
    source: Source, name: str, images: ImageFolder, test_columns: Iterable[str] | None
) -> _IdColumn | None:
    """Return a column as one that names images; None if it names none or hardly varies."""
    values = source.table[name]
    tried = values.unique()
    files = float(values.map(has_suffix).mean()) >= _MOST
    if len(tried) * 2 < (values != "").sum() and not files:
        return None
    if len(tried) > 2 * _TRIED and not any(map(images.find, tried[:: len(tried) // _TRIED])):
        return None
    found = {value: next(iter(images.find(value)), None) for value in tried}
    if not any(found.values()):
        return None
    return _IdColumn(
        name=name,
        images=[found[value] for value in values],
        files=files,
        index=is_unnamed(name) or (called_like_index(name) and is_sequence(values)),
        called=called_like_id(name),
        in_test=test_columns is None or name in test_columns,
        unique=len(tried) == len(values),
    )


def _refuse_values_as_names(source: Source, images: ImageFolder) -> None:
    """Make sure that the first line of a table has names of columns, not of an image."""
    for name in source.table.columns:
        if has_suffix(name) and images.find(name):
            raise DataError(
                f"{source.file}: the first line names an image, {name}; put a line of column names "
                "above it, as in image,label"
            )


def _no_id(source: Source, images: ImageFolder) -> str:
    """Return the remedy if no column names images."""
    table = source.table
    likely = [name for name in table.columns if called_like_id(name)]
    likely.sort(key=lambda name: (-table[name].map(has_suffix).mean(), -called_like_id(name)))
    shown = [*likely[:1], *(name for name in table.columns if name not in likely[:1])]
    columns = _listed([f"{name} {table[name].iloc[0]!r}" for name in shown])
    texts = (value for name in table for value in table[name].unique())
    separate = ""
    if len(table.columns) == 1 and " " in table.columns[0]:
        separate = "the columns must be separated by commas, semicolons or tabs; "
    return (
        f"{source.file}: no column names images of {images.folder}, which are called "
        f"{_listed(images.names)} (the first row has {columns}); {separate}"
        f"{lost_zeros(texts, images)}check --images, or write the names of the images into a column"
    )


def other_image_columns(source: Source, id_column: str, images: ImageFolder) -> list[str]:
    """Return columns of file names, other than the id, that name other images than it does."""
    others = []
    for name in source.table.columns:
        values = source.table[name]
        if name == id_column or values.map(has_suffix).mean() < _MOST:
            continue
        column = _names(source, name, images, None)
        own = [next(iter(images.find(value)), None) for value in source.table[id_column]]
        if column is not None and column.images != own:
            others.append(name)
    return others


def guess_target(
    source: Source,
    id_column: str,
    test_columns: Iterable[str],
    test: pd.DataFrame | None = None,
) -> Guess:
    """Choose the target column.

    Columns count that vary, are not the id, are not called like a group, and hold numbers (other
    than those of the rows) or texts that repeat, or are called as people call targets. Where the
    test table has a column too, and it varies there, it is no target, unless it is called so.
    Columns that are called like a target go before others, the most usual name first; then one of
    at most 20 values, then the last.

    A person should be asked if several are called so (and do not say the same), or none is and
    several are left.

    Args:
        source: The table of the labelled images.
        id_column: Its id column.
        test_columns: Columns of the test table.
        test: The test table, in which a placeholder may stand in the target's column.

    Raises:
        DataError: No column is left.
    """
    table = source.table
    ranks = {name: target_rank(name) for name in table.columns}
    facts = {
        name: ColumnFacts.of(table[name])
        for name in table.columns
        if name not in (id_column, FOLD_COLUMN) and not is_unnamed(name)
    }
    pool = [
        name
        for name, fact in facts.items()
        if ranks[name] > 1 or (fact.may_be_target and not like_group(name))
    ]
    known = {name for name in test_columns if test is None or not _is_placeholder(test[name])}
    pool = [name for name in pool if name not in known or ranks[name]] or pool
    if not pool:
        raise DataError(
            f"{source.file}: no column looks like a target (it has: "
            f"{', '.join(table.columns)}); name it with --target"
        )
    ordered = sorted(
        pool,
        key=lambda name: (-ranks[name], facts[name].distinct > MAX_CLASSES, -pool.index(name)),
    )
    named = [name for name in ordered if ranks[name]]
    best, unclear = ordered[0], named[1:] if named else ordered[1:]
    if named and best in known:
        # Its values are in the test table too: one that only the labelled images have may be meant.
        unclear = [name for name in ordered[1:] if name not in known or ranks[name]]
    # Two columns of numbers are two targets, even if one of them follows from the other.
    unclear = [
        name
        for name in unclear
        if (facts[best].numeric and facts[name].numeric)
        or not _say_the_same(table[best], table[name])
    ]
    kind = "numbers" if facts[best].numeric else "text"
    why = f"{kind}, {facts[best].distinct:,} values"
    if named:
        why += ", called like a target"
    elif len(pool) > 1:
        why += f", the last such column of {len(pool)}"
    preferred = bool(named) and all(ranks[best] > ranks[name] for name in unclear)
    return Guess(best, why, tuple(unclear), preferred)


def _is_placeholder(column: pd.Series) -> bool:
    """Return whether a column of the test table has no values of its own: empty, or one value."""
    values = set(column.unique())
    return values <= {*GAPS, "0", "0.0", "-1"} or (len(values) == 1 and len(column) > 1)


def _say_the_same(one: pd.Series, other: pd.Series) -> bool:
    """Return whether each value of a column goes with one of another, as a name and its number."""
    pairs = pd.DataFrame({"one": one, "other": other}).drop_duplicates()
    return bool(pairs["one"].is_unique and pairs["other"].is_unique)


def guess_group(source: Source, id_column: str, target_column: str) -> Guess:
    """Choose the group column, whose equal values must stay in one fold; or none.

    Columns count that are neither id nor target, have no gaps, and repeat: those called like
    :data:`GROUP_WORDS`, then those whose name ends in ``_id``. Not one that says the same as
    the target. Of several the first is taken, and a person should be asked.

    Args:
        source: The table of the labelled images.
        id_column: Its id column.
        target_column: Its target column.
    """
    found = []
    for name in source.table.columns:
        if name in (id_column, target_column) or not like_group(name):
            continue
        values = source.table[name]
        n_groups = values.nunique()
        if values.isin(GAPS).any() or not 2 <= n_groups < len(values):
            continue
        targets = source.table[target_column]
        of_each = targets.groupby(values).nunique()
        if of_each.max() == 1 and n_groups == targets.nunique():
            continue
        found.append(name)
    found.sort(key=lambda name: not named_like(name, GROUP_WORDS))
    if not found:
        return Guess(None, "no column called like a group has values that repeat")
    count = source.table[found[0]].nunique()
    return Guess(found[0], f"{count:,} values, images of one stay in one fold", tuple(found[1:]))


def check_group(source: Source, column: str) -> None:
    """Make sure that a column can be the group.

    Raises:
        DataError: It has gaps or a single value.
    """
    values = source.table[column]
    gaps = values.isin(GAPS)
    if gaps.any():
        raise DataError(
            f"{source.file}: column {column}: {counted(gaps.sum(), 'row has', 'rows have')} "
            f"no group; fill them in, or "
            "choose another with --group (none: every image stands alone)"
        )
    if values.nunique() < 2:
        raise DataError(
            f"{source.file}: column {column}: all rows are of one group, which cannot be split; "
            "choose another with --group (none: every image stands alone)"
        )


def locate(source: Source, column: str, images: ImageFolder) -> list[str]:
    """Return the image of each row, as its path in the image folder.

    Args:
        source: The table.
        column: Its id column.
        images: The images.

    Raises:
        DataError: One line per problem: ids that are empty, stand twice, name no image or
            several.
    """
    ids = source.table[column]
    found = [images.find(value) for value in ids]
    missing = [value for value, names in zip(ids, found, strict=True) if value and not names]
    several = [(v, names) for v, names in zip(ids, found, strict=True) if len(names) > 1]
    twice = ids[ids.duplicated() & (ids != "")].unique().tolist()
    empty = int((ids == "").sum())
    problems = []
    if empty:
        problems.append(
            f"{counted(empty, 'row has', 'rows have')} no id; fill them in, or leave them out "
            f"with --skip-missing"
        )
    if twice:
        problems.append(
            f"{counted(len(twice), 'id stands', 'ids stand')} more than once: "
            f"{_listed(twice)}; leave one row each"
        )
    if missing:
        problems.append(
            f"{len(missing)} of {len(ids)} rows name images that are not in {images.folder}: "
            f"{_listed(missing)}; {lost_zeros(missing, images)}add the images, leave "
            "such rows out with --skip-missing, or name another column with --id"
        )
    if several:
        value, names = several[0]
        problems.append(
            f"{counted(len(several), 'id names', 'ids name')} several images, as {value} "
            f"does: {_listed(names)}; write "
            "their paths into the table, or name the folder of these images alone with --images "
            "(and that of the images to predict with --test-images)"
        )
    if problems:
        raise DataError("\n".join(f"{source.file}: column {column}: {p}" for p in problems))
    return [names[0] for names in found]


def lost_zeros(ids: Iterable[str], images: ImageFolder) -> str:
    """Return advice if ids are numbers of images without their leading zeros; else nothing."""
    stems = (without_suffix(name).split("/")[-1] for name in images.names)
    padded = {stem.lstrip("0") or "0": stem for stem in stems if stem.isdecimal()}
    for value in ids:
        image = padded.get(value)
        if image is not None and image != value:
            return (
                f"the table has lost the zeros of {image}, as a spreadsheet does (save the column "
                "as text); "
            )
    return ""


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:3]) + (", ..." if len(values) > 3 else "")
