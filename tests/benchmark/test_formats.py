"""A table of text in three formats."""

import csv

from nvisa.benchmark.formats import Grid, as_csv, latex, markdown


def test_a_bar_in_a_cell_does_not_end_it():
    assert markdown(Grid(("q(y|x)",), (("a|b",),))) == "| q(y\\|x) |\n|---|\n| a\\|b |"
    assert "a$|$b" in latex(Grid(("x",), (("a|b",),)))


def test_a_grid_in_three_formats():
    table = Grid(("a_b", "c %"), (("x & y", "1 ± 2"), ("z, w", "-")))
    assert markdown(table) == "| a_b | c % |\n|---|---|\n| x & y | 1 ± 2 |\n| z, w | - |"
    assert "x \\& y & 1 $\\pm$ 2 \\\\" in latex(table)
    assert "a\\_b & c \\% \\\\" in latex(table)
    assert latex(table).startswith("\\begin{tabular}{lr}")
    assert list(csv.reader(as_csv(table).splitlines())) == [list(table.head), *map(list, table.rows)]
