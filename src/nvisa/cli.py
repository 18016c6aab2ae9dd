"""The command line as a function: ``main(["fit", "data.csv", "--n-clusters", "3", "--out", "model"])`` -> exit code."""

from nvisa.commands.cli import main

__all__ = ["main"]
