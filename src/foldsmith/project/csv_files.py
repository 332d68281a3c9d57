"""Reading CSV files as people have them: one parser for every table.

A file that Excel, pandas or a text editor wrote is either read as it is meant, or refused with one
line that has the number of the line and the remedy. pandas parses clean text only, so that its own
messages, which are about its arguments, do not reach people.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foldsmith.errors import DataError, one_line

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# First bytes of files that are often named in the place of a CSV.
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook or a ZIP file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "compressed by gzip",
}

# Possible delimiters; among equally good ones the first is used.
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
# The line by which Excel is told the delimiter.
_EXCEL_HINT = re.compile(r"sep=(.)\n", re.IGNORECASE)
# Rows that are looked at to find the delimiter.
_SAMPLE_ROWS = 50

# A longer value means an unclosed quote.
_LONGEST_VALUE = 1 << 24


@dataclass(frozen=True)
class Parsed:
    """A CSV as it stands.

    Attributes:
        table: Every value a text (object); a short row's missing values are "".
        doubled: Duplicated column name -> its problem; all except the first of these columns are
            renamed in the table.
    """

    table: pd.DataFrame
    doubled: dict[str, str]


def parse(path: Path) -> Parsed:
    """Read a CSV as it stands.

    Args:
        path: UTF-8, or UTF-16 with its byte order mark; any line ends; values separated by
            commas, semicolons, tabs or vertical bars. Rows without any value are left out, and so
            are blanks around column names.

    Raises:
        DataError: The file is missing, empty or unreadable, a row has more values than there are
            columns, or quotes are not closed.
    """
    text, names = _clean(path)
    try:
        table = pd.read_csv(io.StringIO(text), index_col=False, dtype=str, keep_default_na=False)
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as CSV: {one_line(error)}") from None
    # A row that is too short: its last values are gaps.
    return Parsed(table.astype(object).fillna(""), _doubled(names))


def read_texts(path: Path) -> pd.DataFrame:
    """Read a CSV as :func:`parse` does; every column must have a name of its own.

    Raises:
        DataError: Also, a column name stands twice.
    """
    parsed = parse(path)
    for problem in parsed.doubled.values():
        raise DataError(f"{path}: {problem}")
    return parsed.table


def line_numbers(path: Path, rows: Sequence[int]) -> list[int]:
    """Return the lines of a file in which rows of its table begin.

    Args:
        path: A file that :func:`parse` reads.
        rows: Row numbers from 0, ascending.
    """
    content = _Content.of(path)
    wanted, found = set(rows), []
    records = (record for record in _records(path, content) if not _is_blank(record.values))
    next(records)  # column names
    for row, record in enumerate(records):
        if row in wanted:
            found.append(record.line)
            if len(found) == len(wanted):
                break
    return found


@dataclass(frozen=True)
class _Content:
    """The text of a CSV, and how it is to be taken apart.

    Attributes:
        text: All of it, with line ends LF.
        delimiter: Delimiter of values.
        blanks: Whether blanks follow the delimiters.
        first_line: Number of its first line in the file, from 1.
    """

    text: str
    delimiter: str
    blanks: bool
    first_line: int

    @classmethod
    def of(cls, path: Path) -> "_Content":
        text = _decoded(path)
        hint = _EXCEL_HINT.match(text)
        if hint:
            return cls._with(text[hint.end() :], hint[1], 2)
        return cls._with(text, _delimiter(text), 1)

    @classmethod
    def _with(cls, text: str, delimiter: str, first_line: int) -> "_Content":
        blanks = False
        if delimiter != "\t":
            names = next(csv.reader(text.lstrip("\n").split("\n", 1)[:1], delimiter=delimiter), [])
            # A quote after a blank would be part of the value.
            blanks = any(name[:1] == " " for name in names[1:]) or f'{delimiter} "' in text
        return cls(text, delimiter, blanks, first_line)


@dataclass(frozen=True, slots=True)
class _Record:
    """One row of a file, or its column names.

    Attributes:
        values: Its values.
        line: The line in which it begins, from 1.
    """

    values: list[str]
    line: int


def _decoded(path: Path) -> str:
    """Return the text of a file, with line ends LF."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not data.strip():
        raise DataError(f"{path}: is empty; it needs a line of column names and rows")
    for mark, kind in _OTHER_FILES.items():
        if data.startswith(mark):
            raise DataError(f"{path}: is {kind}, not a CSV; save the table as CSV (UTF-8)")
    encoding = next((e for mark, e in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(data[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
        raise DataError(
            f"{path}: line {line} is not {encoding.removesuffix('-sig').upper()} text; save the "
            "file as UTF-8 (a spreadsheet calls it 'CSV UTF-8')"
        ) from None
    if "\0" in text:
        raise DataError(
            f"{path}: holds bytes that are no text; is it a CSV? (If it is, save it as UTF-8)"
        )
    if not text.strip("\ufeff \t\r\n"):
        raise DataError(f"{path}: is empty; it needs a line of column names and rows")
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _delimiter(text: str) -> str:
    """Return the delimiter by which the first rows have as many values as there are names."""
    lines = [line for line in text[: 1 << 20].split("\n") if line.strip()]

    def fit(delimiter: str) -> tuple[int, int]:
        try:
            rows = list(csv.reader(lines[: _SAMPLE_ROWS + 1], delimiter=delimiter))
        except csv.Error:
            return 0, 0
        width = len(rows[0])
        return (sum(len(row) == width for row in rows[1:]), width) if width > 1 else (-1, 0)

    return max(_DELIMITERS, key=fit)


def _clean(path: Path) -> tuple[str, list[str]]:
    """Return a file as text that every reader of CSV understands alike, and its column names.

    Raises:
        DataError: It cannot be understood.
    """
    content = _Content.of(path)
    records = _records(path, content)
    header = next(record for record in records if not _is_blank(record.values))
    names = [name.strip() for name in header.values]
    regular = content.delimiter == "," and not content.blanks and names == header.values
    width, used = len(names), {k for k, name in enumerate(names) if name}
    complete = len(used) == width
    if regular and complete and _is_plain(content.text, width):
        return content.text, names
    reader = _reader(content)
    try:
        for values in reader:
            if len(values) > width:
                _check_width(
                    path, content, names, _Record(values, _line(content, reader.line_num, values))
                )
                regular = False
            if not complete:
                used |= {k for k, value in enumerate(values[:width]) if value.strip()}
                complete = len(used) == width
            if values and _is_blank(values):
                regular = False
    except csv.Error:
        # Once more, to find the line in which the row begins.
        for _ in _records(path, content):
            continue
        raise
    if regular and complete:
        return content.text, names
    return _written(path, content, names, sorted(used)), names


def _is_plain(text: str, width: int) -> bool:
    """Return whether all lines have as many values as there are columns, and no quotes.

    Tables of a million rows are so, and need no look at each of their values.
    """
    if '"' in text or "\n," in text:
        return False
    data = np.frombuffer(text.encode(), np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    if data[-1] != ord("\n"):
        ends = np.append(ends, len(data))
    before = np.searchsorted(np.flatnonzero(data == ord(",")), ends)
    # Of a single column, every line may be empty.
    return width > 1 and bool((np.diff(before, prepend=0) == width - 1).all())


def _written(path: Path, content: _Content, names: Sequence[str], used: Sequence[int]) -> str:
    """Return a file's rows as plain CSV, of columns that have a name or a value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    # As pandas calls a column without a name, by its place in the file.
    writer.writerow([names[k] or f"Unnamed: {k}" for k in used])
    records = (record for record in _records(path, content) if not _is_blank(record.values))
    next(records)
    for record in records:
        values = record.values
        row = [values[k] for k in used if k < len(values)]
        # A row of one empty value would be an empty line.
        writer.writerow([*row, *[""] * (len(used) - len(row))])
    return out.getvalue()


def _reader(content: _Content) -> Any:
    """Return a reader of the csv module."""
    csv.field_size_limit(_LONGEST_VALUE)
    return csv.reader(
        io.StringIO(content.text),
        delimiter=content.delimiter,
        skipinitialspace=content.blanks,
        strict=True,
    )


def _line(content: _Content, line_num: int, values: Sequence[str]) -> int:
    """Return the line in which a row begins, from the number of lines read at its end."""
    inner = sum(value.count("\n") for value in values)
    return content.first_line + line_num - 1 - inner


def _records(path: Path, content: _Content) -> Iterator[_Record]:
    """Yield the rows of a file, its column names first, empty lines included.

    Raises:
        DataError: Its quotes do not fit.
    """
    reader = _reader(content)
    after = content.first_line
    try:
        for values in reader:
            yield _Record(values, after)
            after = content.first_line + reader.line_num
    except csv.Error as error:
        raise DataError(_quote_problem(path, content, after, error)) from None


def _quote_problem(path: Path, content: _Content, line: int, error: csv.Error) -> str:
    """Return the problem with the quotes of a row that begins in a line."""
    where = f"{path}: line {line}"
    text = content.text.split("\n")[line - content.first_line]
    if "end of data" in str(error) or "field limit" in str(error) or text.count('"') % 2:
        return f'{where}: a quote (") is opened and never closed; close or remove it'
    return (
        f'{where}: something follows a closing quote (") before the next '
        f"{_DELIMITERS.get(content.delimiter, content.delimiter)}; remove it, or double the quotes "
        'within a value ("")'
    )


def _is_blank(values: Sequence[str]) -> bool:
    return not any(map(str.strip, values))


def _doubled(names: Sequence[str]) -> dict[str, str]:
    """Return duplicated column names, each with its problem."""
    twice = [name for name, n in Counter(filter(None, names)).items() if n > 1]
    return {name: _doubled_problem(name, names) for name in twice}


def _doubled_problem(name: str, names: Sequence[str]) -> str:
    places = [str(place) for place, other in enumerate(names, 1) if other == name]
    return (
        f"the column name {name!r} stands {len(places)} times (columns {', '.join(places)}); give "
        "each column a name of its own"
    )


def _check_width(path: Path, content: _Content, names: Sequence[str], record: _Record) -> None:
    """Check that values beyond the column names are empty, as after a last comma."""
    values, width = record.values, len(names)
    if _is_blank(values[width:]):
        return
    delimiter = _DELIMITERS.get(content.delimiter, content.delimiter)
    remedy = f"put quotes around a value that contains a {delimiter}"
    if width == 1:
        remedy = "the first line must be the column names, without a title above; or " + remedy
    elif content.delimiter == "," and _has_decimal_comma(values):
        remedy = (
            "if its numbers have decimal commas, save the table with semicolons between the "
            "columns, or write points"
        )
    names_are = "is 1 column name" if width == 1 else f"are {width} column names"
    raise DataError(
        f"{path}: line {record.line} has {len(values)} values, but there {names_are}: {remedy}"
    )


def _has_decimal_comma(values: Sequence[str]) -> bool:
    """Return whether two neighbours look like the halves of a number."""
    return any(
        re.fullmatch(r"[+-]?\d{1,6}", one) and re.fullmatch(r"\d+", other)
        for one, other in pairwise(values[1:])
    )
