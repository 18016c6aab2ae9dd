"""Pages that people look at: a fitted clusterer with its rows, or the records of a benchmark."""

from nvisa.report.page import write_report
from nvisa.report.records import write_records_report

__all__ = ["write_records_report", "write_report"]
