"""Results of a run: as tables and figures, as one HTML file, compared with another run."""

from foldsmith.report.page import compare, write_report
from foldsmith.report.results import Results

__all__ = ["Results", "compare", "write_report"]
