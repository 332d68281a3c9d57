"""The log: one JSON list, one entry per epoch."""

import json
from pathlib import Path
from typing import Any

import pytorch_pfn_extras as ppe

LOG_FILE = "log.json"


def create_log_report(filename: str = LOG_FILE) -> ppe.training.extensions.LogReport:
    """Return the extension that writes the log; ``pandas.read_json`` reads it.

    Args:
        filename: Name in the output folder.
    """
    return ppe.training.extensions.LogReport(filename=filename, format="json")


def entries_of(folder: Path) -> list[dict[str, Any]]:
    """Return the log of a training from its folder; empty if there is no readable log."""
    try:
        entries: list[dict[str, Any]] = json.loads((folder / LOG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return entries
