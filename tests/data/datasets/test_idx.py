"""IDX files."""

import numpy as np
import pytest

from made_up import write_idx
from nvisa.data import DataError
from nvisa.data.datasets.idx import DTYPES, parse_idx


@pytest.mark.parametrize("dtype", [np.dtype(name) for name in DTYPES.values()])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3)])
def test_idx_round_trip(dtype, shape):
    array = np.random.default_rng(2).integers(0, 127, size=shape).astype(dtype)
    parsed = parse_idx(write_idx(array))
    assert parsed.dtype == dtype
    np.testing.assert_array_equal(parsed, array, strict=True)


IDX = write_idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    "raw", [b"", IDX[:2], IDX[:7], IDX[:-1], IDX + b"\0", b"\x1f\x8b" + IDX, b"\0\0\x07\1" + IDX[4:]]
)
def test_damaged_idx_is_refused(raw):
    with pytest.raises(DataError, match=r"train\.idx: expected .*(got|cut)"):
        parse_idx(raw, source="train.idx")
