"""Data sets that have names."""
