"""HTML files that show what a run found, and two runs beside each other."""

from foldsmith.report.page import compare, write_report

__all__ = ["compare", "write_report"]
