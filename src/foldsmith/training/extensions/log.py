"""The log: one JSON list, one entry per epoch."""

import pytorch_pfn_extras as ppe

from foldsmith.training.files import LOG_FILE


def create_log_report(filename: str = LOG_FILE) -> ppe.training.extensions.LogReport:
    """Return the extension that writes the log; ``pandas.read_json`` reads it.

    Args:
        filename: Name in the output folder.
    """
    return ppe.training.extensions.LogReport(filename=filename, format="json")
