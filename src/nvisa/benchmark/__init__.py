"""Recipes to records: the only source of the numbers in our documents."""
