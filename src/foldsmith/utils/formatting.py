"""Numbers and names as people read them."""

from foldsmith.errors import one_line


def size_text(n_bytes: float) -> str:
    """Return bytes as ``120 MiB``, ``3.4 GiB``."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**29 else f"{n_bytes / 2**20:.0f} MiB"


def brief(name: object, length: int = 24) -> str:
    """Return a name of the data for a line of text: without line breaks, and not too long."""
    text = one_line("".join(c if c.isprintable() else " " for c in str(name)))
    return text if len(text) <= length else f"{text[: length - 3]}..."


def number_text(value: float) -> str:
    """Return a number with all its digits, a whole one without a decimal point.

    Two numbers that differ never give one text: 1000010653 is not 1.00001e+09.
    """
    value = float(value)
    return str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 row``, ``1,200 rows``, ``0 classes``.

    Args:
        n: The number.
        noun: The noun in the singular.
        plural: Its plural, where that is not the noun with ``s`` (``es`` after ``s``, ``ch``).
    """
    if plural is None:
        plural = f"{noun}es" if noun.endswith(("s", "ch", "sh", "x")) else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"
