"""The contents of a table's columns, and hints in their names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.new.survey.values import GAPS, finite

# Names by which people call the target, the most usual first; "y" among them.
TARGET_NAMES = ("target", "label", "class", "y", "labels", "targets", "category", "class_name")
# Words of a column's name by which it is taken for a target or for a group.
TARGET_WORDS = ("target", "label", "class", "score", "grade", "category")
GROUP_WORDS = ("group", "patient", "series", "subject", "object")
# Words of a name by which numbers are taken for ids of classes rather than for a scale.
CLASS_WORDS = ("label", "class", "category", "species", "breed", "kind", "type", "digit")
# Names by which people call the ids of images, and words of them.
ID_NAMES = {"id", "image", "imageid", "filename", "file", "path", "img", "imgid", "photo", "name"}
ID_NAMES |= {"imagename", "imagepath", "filepath", "photoid", "picture", "imagefile"}
ID_WORDS = ("id", "image", "img", "file", "filename", "path", "photo", "picture", "name")
_INDEX_WORDS = ("index", "idx", "row", "nr", "no", "number")


@dataclass(frozen=True)
class Guess:
    """The guessed role of a column.

    Attributes:
        column: Name of the column; None for none.
        why: Why, in a few words.
        others: Other possible columns; if there are any, a person should be asked.
        preferred: Where there are others: people call such a column so, and none of the others.
    """

    column: str | None
    why: str
    others: tuple[str, ...] = ()
    preferred: bool = False


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


@dataclass(frozen=True)
class ColumnFacts:
    """Contents of a column of text.

    Attributes:
        numeric: Numbers, but for one in ten at most.
        distinct: Different values.
        may_be_target: It varies, and holds numbers (not those of the rows) or texts that repeat.
    """

    numeric: bool
    distinct: int
    may_be_target: bool

    @classmethod
    def of(cls, column: pd.Series) -> "ColumnFacts":
        """Look at a column of text."""
        present = column[~column.isin(GAPS)]
        found = finite(present)
        numeric = len(present) > 0 and int(found.isna().sum()) * 10 <= len(present)
        distinct = int(found.nunique() if numeric else present.nunique())
        useful = distinct <= max(2, len(present) // 2)
        if numeric:
            useful = not counts_rows(found)
        return cls(numeric, distinct, distinct > 1 and useful)


def counts_rows(values: pd.Series) -> bool:
    """Return whether numbers are a row number: integers one after another, in any order."""
    steps = np.diff(np.sort(values.to_numpy()))
    return len(steps) > 1 and bool((steps == 1).all())


def is_sequence(column: pd.Series) -> bool:
    """Return whether a column counts its rows in their order, from 0 or from 1 on."""
    n = len(column)
    return any(column.tolist() == [str(k) for k in range(first, n + first)] for first in (0, 1))


def is_unnamed(name: str) -> bool:
    """Return whether a column has no name in the file, as the index that pandas writes."""
    return name.startswith("Unnamed:")


def called_like_index(name: str) -> bool:
    """Return whether a column is called like a number of rows."""
    return is_unnamed(name) or bool(set(words_of(name)) & set(_INDEX_WORDS))


def called_like_id(name: str) -> int:
    """Return 2 for a name that people give to ids of images, 1 for one with a word of them."""
    if re.sub(r"[^a-z]", "", name.lower()) in ID_NAMES:
        return 2
    return int(named_like(name, ID_WORDS))


def target_rank(name: str) -> int:
    """Return a number that is higher the more usual a name is for a target; 0 for other names."""
    lower = re.sub(r"[ -]", "_", name.lower())
    if lower in TARGET_NAMES:
        return 1 + len(TARGET_NAMES) - TARGET_NAMES.index(lower)
    return int(like_target(name))


def called_like_class(name: str) -> bool:
    """Return whether a name is one of classes, not of a scale."""
    return named_like(name, CLASS_WORDS)


def words_of(name: str) -> list[str]:
    """Return the words of a column's name, in lower case: ``PatientID`` is patient, id."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def named_like(name: str, words: Sequence[str]) -> bool:
    """Return whether a name has one of the words, as it is, with an s or with id."""
    known = {form for word in words for form in (word, f"{word}s", f"{word}id")}
    return bool(known & set(words_of(name)))


def like_target(name: str) -> bool:
    """Return whether a name has a word of targets."""
    return named_like(name, TARGET_WORDS) or name.lower() == "y"


def like_group(name: str) -> bool:
    """Return whether a name has a word of groups, or ends in id."""
    words = words_of(name)
    ends_in_id = len(words) > 1 and words[-1] == "id"
    return not like_target(name) and (ends_in_id or named_like(name, GROUP_WORDS))
