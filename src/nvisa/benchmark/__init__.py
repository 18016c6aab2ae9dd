"""Recipes to records: the only source of the numbers in our documents."""

from pathlib import Path

__all__ = ["MODELS", "PAPER", "RECORDS"]

RECORDS = Path("benchmarks/records")
MODELS = Path("benchmarks/models")  # not committed: figures make what they lack
PAPER = Path("benchmarks/paper")  # runs at the slides' full length
