"""Data sets by name, the user's own files, and features of images. Nothing here imports the rest of nvisa."""

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
