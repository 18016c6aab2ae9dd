"""What the page carries comes out as it went in."""

import numpy as np
import pytest

from nvisa.report.encoding import encoded, encoded_floats, encoded_json, one_line
from report_pages import decoded


def test_packing_loses_nothing(random):
    for dtype in (np.uint8, np.uint16, np.uint32, np.float32):
        values = (100 * random.rand(50)).astype(dtype)
        np.testing.assert_array_equal(decoded(encoded(values[::2])), values[::2])
    assert decoded(encoded_json(["a<b", "ü"])) == ["a<b", "ü"]


def test_levels_are_exact_to_half_a_step_and_keep_what_is_missing(random):
    values = np.concatenate([1e4 + random.randn(1000), [np.nan]])
    packed = encoded_floats(values)
    level = decoded(packed)
    step = (packed["high"] - packed["low"]) / 65_534
    np.testing.assert_allclose(packed["low"] + step * level[:-1], values[:-1], atol=0.51 * step)
    assert (level == 65_535).tolist() == [False] * 1000 + [True]
    assert decoded(encoded_floats(np.full(3, 7.0))).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("two\n lines", "two lines"),
        ("a\u202eb\x00c", "a\ufffdb\ufffdc"),
        ("\ud800", "\ufffd"),
        ("<b>\N{SLIGHTLY SMILING FACE}", "<b>\N{SLIGHTLY SMILING FACE}"),
        (3.5, "3.5"),
    ],
)
def test_text_from_data_is_one_printable_line(given, shown):
    assert one_line(given) == shown


def test_long_text_is_cut():
    assert one_line("x" * 10_000) == "x" * 79 + "…"
