"""One page about a fitted clusterer and its rows."""

from nvisa.report.page import write_report

__all__ = ["write_report"]
