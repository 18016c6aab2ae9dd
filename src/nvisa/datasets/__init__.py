"""Data sets by name, and tables from the user's own files. A leaf: imports nothing else of nvisa."""

from nvisa.datasets.download import Progress
from nvisa.datasets.errors import ChecksumError, DataError, DownloadError
from nvisa.datasets.files import Table, read_table
from nvisa.datasets.loading import Availability, Dataset, available, data_home, fetch, load

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
