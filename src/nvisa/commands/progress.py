"""Progress of downloads and of images turned into features: a plain line every tenth."""

import sys
from typing import Any

__all__ = ["DownloadProgress", "ImageProgress"]


class DownloadProgress:
    """Shows a download, as ``nvisa.data.fetch`` reports it: a line at every tenth of a file."""

    def __init__(self, file: Any = None) -> None:
        self.file = file if file is not None else sys.stderr
        self.shown: dict[str, int] = {}

    def __call__(self, name: str, here: int, total: int | None) -> None:
        """Show that ``here`` of ``total`` bytes of a file have arrived."""
        tenth = 10 * here // total if total else here >> 20
        if tenth > self.shown.get(name, -1):
            self.shown[name] = tenth
            of = f" of {total / 1e6:.1f}" if total else ""
            print(f"{name}: {here / 1e6:.1f}{of} MB", file=self.file, flush=True)


class ImageProgress:
    """Shows how many images of a split are done: a line at every tenth."""

    def __init__(self, file: Any = None) -> None:
        self.file = file if file is not None else sys.stderr
        self.shown: dict[str, int] = {}

    def __call__(self, split: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` images are done."""
        tenth = 10 * done // total
        if tenth > self.shown.get(split, 0):
            self.shown[split] = tenth
            print(f"{split}: {done:,} of {total:,} images", file=self.file, flush=True)
