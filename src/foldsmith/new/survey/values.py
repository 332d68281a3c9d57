"""Numbers as people write them."""

import re

import numpy as np
import pandas as pd

from foldsmith.project.number_columns import numbers

# Text that stands for a gap in numbers and groups (as the name of a class it may stand).
GAPS = {"", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A", "-nan"}
GAPS |= {"?", "-", "--", "#VALUE!", "#DIV/0!"}

# Numbers with a comma for the decimal point; of three digits after it, it may stand for thousands.
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
THOUSANDS_OR_NOT = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
# Numbers in groups of three digits, which are no numbers to any reader.
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}([.,' \u00a0\u202f]\d{3})+([.,]\d+)?")

# A sign of money or of parts before or after a number.
_SIGN = re.compile(r"(?P<before>[$€£¥]?)\s*(?P<number>[+-]?[\d.,]+)\s*(?P<after>[%‰$€£¥]?)")
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2}))([ T].*)?"
)


def finite(column: pd.Series) -> pd.Series:
    """Return the numbers of a column of text, float64; NaN where there is none.

    Decimals have points or commas. One sign that all values have (``12%``, ``$3``) is left out.
    """
    plain, _ = without_sign(column)
    with_commas = plain.str.fullmatch(DECIMAL_COMMA)
    values = numbers(plain.where(~with_commas, plain.str.replace(",", ".", regex=False)))
    return values.where(np.isfinite(values))


def without_sign(column: pd.Series) -> tuple[pd.Series, str]:
    """Return values of text without the sign that all of them have, and the sign; "" for none."""
    plain = column.str.strip()
    present = plain[~column.isin(GAPS)]
    first = _SIGN.fullmatch(present.iloc[0]) if len(present) else None
    if first is None or not first["before"] + first["after"]:
        return plain, ""
    parts = present.str.extract(f"^{_SIGN.pattern}$")
    if parts["number"].isna().any():
        return plain, ""
    kinds = (parts["before"] + "|" + parts["after"]).unique()
    if len(kinds) > 1 or kinds[0] == "|":
        return plain, ""
    found = plain.copy()
    found[present.index] = parts["number"]
    return found, kinds[0].replace("|", "")


def mixed_signs(column: pd.Series) -> tuple[str, str] | None:
    """Return a value with a sign and one without it, or with another, if there are such."""
    present = column[~column.isin(GAPS)].str.strip()
    parts = present.str.extract(f"^{_SIGN.pattern}$")
    if len(present) == 0 or parts["number"].notna().mean() < 0.9:
        return None
    kinds = (parts["before"] + "|" + parts["after"]).fillna("|")
    if kinds.nunique() < 2:
        return None
    signed = present[kinds != "|"]
    other = present[kinds != kinds[signed.index[0]]]
    return signed.iloc[0], other.iloc[0]


def are_dates(column: pd.Series) -> bool:
    """Return whether all values of a column of text that are no gaps are dates."""
    present = column[~column.isin(GAPS)].str.strip()
    return len(present) > 0 and bool(present.str.fullmatch(_DATE).all())
