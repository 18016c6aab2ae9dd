"""The rows that DATA stands for."""

from pathlib import Path

import pytest

from nvisa.commands import cli
from nvisa.commands.options import ReadOptions
from nvisa.commands.rows import read_rows


def test_a_name_wins_over_a_path_and_says_so(home):
    (home / "digits").mkdir()
    with pytest.warns(UserWarning, match=r"write ./digits for the path"):
        assert read_rows("digits", ReadOptions()).source == "digits, train split"
    with pytest.raises(ValueError, match="expected images"):
        read_rows("./digits", ReadOptions())


@pytest.mark.filterwarnings("ignore:Only . of 2 clusters")
def test_gaps_are_counted_and_left_out_when_asked(capsys):
    Path("x.csv").write_text("id,a,b\nr,1,2\ns,,4\nt,5,\nu,7,\nv,9,10\n")
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", "m", "--init", "random", "--epochs", "1"]) == 0
    assert "gaps       3 rows have gaps (3 in all), modeled as not observed; --drop-missing" in capsys.readouterr().err
    rows = read_rows("x.csv", ReadOptions())
    assert (len(rows.X), rows.n_with_gaps, rows.n_gaps, rows.n_incomplete) == (5, 3, 3, 0)
    rows = read_rows("x.csv", ReadOptions(drop_missing=True))
    assert (rows.X.tolist(), rows.names, rows.n_incomplete) == ([[1, 2], [9, 10]], ["r", "v"], 3)
    rows = read_rows("x.csv", ReadOptions(drop=("b",), drop_missing=True))
    assert (rows.X.ravel().tolist(), rows.names) == ([1, 5, 7, 9], ["r", "t", "u", "v"])
