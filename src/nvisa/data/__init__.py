"""Data sets by name, and tables from the user's own files. A leaf: imports nothing else of nvisa."""

from nvisa.data.datasets.download import Progress
from nvisa.data.datasets.loading import Availability, Dataset, available, data_home, fetch, load
from nvisa.data.errors import ChecksumError, DataError, DownloadError
from nvisa.data.files.table import Table, read_table

__all__ = [
    "Availability",
    "ChecksumError",
    "DataError",
    "Dataset",
    "DownloadError",
    "Progress",
    "Table",
    "available",
    "data_home",
    "fetch",
    "load",
    "read_table",
]
