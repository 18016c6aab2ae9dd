"""Data sets by name, the user's own files, and features of images. Nothing here imports the rest of nvisa."""

from nvisa.data.datasets.download import Progress
from nvisa.data.datasets.loading import Availability, Dataset, available, data_home, fetch, load
from nvisa.data.errors import ChecksumError, DataError, DownloadError, Note
from nvisa.data.files.dialect import Dialect
from nvisa.data.files.table import Table, column_names, read_table

__all__ = [
    "Availability",
    "ChecksumError",
    "DataError",
    "Dataset",
    "Dialect",
    "DownloadError",
    "Note",
    "Progress",
    "Table",
    "available",
    "column_names",
    "data_home",
    "fetch",
    "load",
    "read_table",
]
