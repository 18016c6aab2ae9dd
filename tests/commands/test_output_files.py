"""A result is whole, or what was there before still is."""

import os

import numpy as np
import pandas
import pytest

from nvisa.commands.output_files import write_table


def test_a_result_is_whole_or_the_old_one_stays(monkeypatch, home):
    path = home / "l.csv"
    path.write_text("old")
    monkeypatch.setattr(pandas.DataFrame, "to_csv", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_table(path, {"row": np.arange(3)})
    assert path.read_text() == "old"
    assert os.listdir() == ["l.csv"]
