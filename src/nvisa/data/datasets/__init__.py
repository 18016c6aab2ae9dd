"""Data sets that have names: the catalog, downloads, and how each is read."""
