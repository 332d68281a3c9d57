"""What a run has found: as tables and figures, as one HTML file, beside another run."""

from foldsmith.report.page import compare, write_report
from foldsmith.report.results import Results

__all__ = ["Results", "compare", "write_report"]
