"""A file with a given text."""

from pathlib import Path


def write(text, name="x.csv", encoding="utf-8"):
    """Its name, in the folder where the test is."""
    Path(name).write_bytes(text.encode(encoding))
    return name
