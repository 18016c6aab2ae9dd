"""What is read of a file that anybody may have written: of a regular file, and no more than the memory holds."""

import errno
import os
import stat
from pathlib import Path

__all__ = ["available_memory", "read_file"]

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # the limit of a container


def read_file(path: Path) -> bytes:
    """The bytes of a file. An archive can hold a pipe or a link to a device by its name: reading those never ends.

    Raises
    ------
    OSError
        If it is no regular file, or larger than the free memory.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "expected a file, got a folder, a pipe or a device", str(path))
    if found.st_size > (free := available_memory()):
        raise OSError(
            errno.ENOMEM, f"expected what fits into the free memory, {free / 1e9:.1f} GB, got more", str(path)
        )
    return path.read_bytes()


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
