"""What a run has found: as tables and figures, and as one HTML file."""

from foldsmith.report.page import write_report
from foldsmith.report.results import Results

__all__ = ["Results", "write_report"]
