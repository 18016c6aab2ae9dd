"""Recipes to records: the only source of the numbers in our documents."""

from pathlib import Path

__all__ = ["MODELS", "RECORDS"]

RECORDS = Path("benchmarks/records")
MODELS = Path("benchmarks/models")  # not committed: figures make what they lack
