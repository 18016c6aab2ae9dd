"""What the rows hold, and the settings that follow."""

import numpy as np
import pytest

from nvisa.commands.data_profile import profile
from nvisa.commands.options import ReadOptions
from nvisa.commands.rows import read_rows


@pytest.mark.parametrize(
    ("header", "scales", "scaling"),
    [
        ("age,income", [1, 1000], "columns"),
        ("age,height", [1, 1], "columns"),  # names of their own: units of their own
        ("pixel0,pixel1", [1, 3], "global"),  # one vector
        ("e_0_0,e_0_1,e_1_0,e_1_1", [1, 1, 1, 100], "columns"),  # a vector of which one entry would drown the rest
        (None, [1, 2], "global"),
    ],
)
def test_scaling_follows_from_the_columns(header, scales, scaling):
    X = np.random.RandomState(0).randn(50, len(scales)) * scales
    np.savetxt("x.csv", X, delimiter=",", header=header or "", comments="")
    assert profile(read_rows("x.csv", ReadOptions()))["scaling"] == scaling
    assert profile(read_rows("x.csv", ReadOptions()), scaling="global")["scaling"] == "global"


def test_bits_are_bernoulli_and_nothing_else_is():
    bits = np.random.RandomState(0).randint(0, 2, size=(30, 5)).astype(np.float32)
    for X, likelihood in [(bits, "bernoulli"), (bits * 0.5, "gaussian_shared"), (bits * 0, "gaussian_shared")]:
        np.save("x.npy", X)
        assert profile(read_rows("x.npy", ReadOptions()))["likelihood"] == likelihood
