"""The log: one JSON list, one entry per epoch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytorch_pfn_extras as ppe

from foldsmith.training.files import LOG_FILE


def log_report(
    keys: Sequence[str] | None = None,
    trigger: tuple[int, Literal["epoch", "iteration"]] = (1, "epoch"),
    postprocess: Callable[[Mapping[str, Any]], None] | None = None,
    filename: str = LOG_FILE,
    append: bool = False,
    format: Literal["json", "json-lines", "yaml"] | None = None,
) -> ppe.training.extensions.LogReport:
    """Return the LogReport of pytorch-pfn-extras; ``pandas.read_json`` reads its file.

    Args:
        keys: Values that are logged; null logs all.
        trigger: Interval between two entries.
        postprocess: Function that changes each entry before it is written.
        filename: Name in the output folder. Reports and status read ``log.json``.
        append: Add to the file, if the format is not ``json``, instead of writing it anew.
        format: Format of the file; null follows the suffix of its name.
    """
    # A YAML list is a list, and pytorch-pfn-extras takes an interval as a tuple.
    return ppe.training.extensions.LogReport(
        keys, (trigger[0], trigger[1]), postprocess, filename, append, format
    )
