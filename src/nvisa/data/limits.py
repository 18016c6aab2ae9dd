"""What a file says that it will need, against the memory that is there: asked before anything is allocated."""

import os
from pathlib import Path

from nvisa.data.errors import DataError

__all__ = ["available_memory", "check_memory"]

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # the limit of a container


def check_memory(path: str | Path, what: str, n_bytes: int, advice: str) -> None:
    """Raise a DataError if so many bytes are not free.

    A small file can ask for any memory: zeros are compressed a thousandfold.
    """
    if n_bytes > (free := available_memory()):
        raise DataError(
            f"{path}: expected what fits into the free memory, {free / 1e9:.1f} GB, got {what}, "
            f"{n_bytes / 1e9:.1f} GB. {advice}"
        )


def available_memory() -> int:
    """Bytes that this process may still take: the system's, or its container's if that has fewer."""
    return min(_of_system(), _of_container())


def _of_system() -> int:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # no Linux: all memory that there is
        pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}) else 0
        return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else 1 << 62


def _of_container() -> int:
    try:
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # none, or "max"
        return 1 << 62
    return max(most - used, 0)
