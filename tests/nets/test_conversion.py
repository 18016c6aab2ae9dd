"""Rows in whatever they come as are the same rows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from nvisa.nets import conversion
from nvisa.nets.conversion import as_rows
from nvisa.nets.rows import is_mapped
from small_methods import make, separated_blobs

X, y = separated_blobs()
X64 = np.arange(12.0).reshape(6, 2)


class Pictures(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.from_numpy(X[i : i + 1]), int(y[i])


class Stream(IterableDataset):
    def __iter__(self):
        yield from torch.from_numpy(X)


class OnDisk:
    """As zarr and h5py have it: a slice is read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.chunks, self.largest = array, array.shape, array.dtype, (2, 2), 0

    def __getitem__(self, rows):
        found = self.array[rows]
        self.largest = max(self.largest, len(found))
        return found


@pytest.mark.parametrize(
    "given",
    [
        torch.from_numpy(X),
        torch.from_numpy(X).requires_grad_(),
        torch.from_numpy(X).to_sparse(),
        Pictures(),
        TensorDataset(torch.from_numpy(X), torch.from_numpy(y)),
        DataLoader(Pictures(), batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(0)),
        DataLoader(Stream(), batch_size=64),
        (X[start : start + 50] for start in range(0, len(X), 50)),
        np.ma.masked_array(X),
        OnDisk(X),
    ],
    ids=["tensor", "grad", "sparse", "dataset", "pairs", "shuffled", "stream", "chunks", "unmasked", "disk"],
)
def test_the_rows_and_their_order_are_those_that_were_given(given):
    np.testing.assert_array_equal(np.asarray(as_rows(given)), X)


def test_a_tensor_of_floats_is_not_copied_and_bfloat16_is_widened():
    tensor = torch.from_numpy(X.copy())
    assert np.shares_memory(as_rows(tensor), tensor.numpy())
    rounded = tensor.to(torch.bfloat16)
    np.testing.assert_array_equal(as_rows(rounded), rounded.float().numpy())


def test_what_is_masked_is_a_gap():
    masked = np.ma.masked_array(np.arange(6).reshape(3, 2), mask=[[0, 1], [0, 0], [1, 0]])
    np.testing.assert_array_equal(as_rows(masked), [[0, np.nan], [2, 3], [np.nan, 5]])


def test_a_large_array_on_disk_becomes_a_map_block_by_block(monkeypatch):
    monkeypatch.setattr(conversion, "SMALL", 10)
    monkeypatch.setattr(conversion, "BLOCK", 2)
    source = OnDisk(X64.astype(np.int64))
    rows = as_rows(source)
    assert is_mapped(rows)
    assert (source.largest, rows.dtype) == (2, np.float64)
    np.testing.assert_array_equal(rows, X64)


def test_tables_of_arrow_keep_their_names_and_the_rest_passes():
    table = pa.table({"a": [1.0, None], "b": [3, 4]})
    assert list(as_rows(table).columns) == ["a", "b"]
    for other in (X, pd.DataFrame(X), X.tolist()):
        assert as_rows(other) is other


def test_what_cannot_be_rows_is_refused():
    with pytest.raises(ValueError, match="without any"):
        as_rows(iter([]))
    with pytest.raises(ValueError, match=r"one number of columns, got \[1, 2\]"):
        as_rows(iter([np.ones((2, 2)), np.ones((2, 1))]))
    with pytest.raises(TypeError, match="got a dict of x"):
        as_rows(iter([{"x": X}]))


def test_a_fit_to_a_loader_predicts_every_form_alike():
    model = make("ae_gmm", epochs=1).fit(DataLoader(Pictures(), batch_size=64, shuffle=True))
    np.testing.assert_array_equal(model.labels_, model.predict(X))
    frame = pd.DataFrame(X).convert_dtypes()
    for form in (torch.from_numpy(X).requires_grad_(), Pictures(), X.tolist(), np.ma.masked_array(X)):
        np.testing.assert_array_equal(model.predict(form), model.labels_)
    np.testing.assert_array_equal(make("ae_gmm", epochs=1).fit(frame).labels_, model.labels_)


@pytest.mark.parametrize("kind", ["zarr", "h5py"])
@pytest.mark.parametrize("is_large", [False, True])
def test_arrays_of_zarr_and_h5py_are_read_block_by_block(kind, is_large, tmp_path, monkeypatch):
    package = pytest.importorskip(kind, reason=f"{kind} is not installed")
    if kind == "zarr":
        made = package.open_array(str(tmp_path / "x.zarr"), mode="w", shape=X.shape, chunks=(64, 3), dtype="float32")
    else:
        made = package.File(tmp_path / "x.h5", "w").create_dataset("X", X.shape, "float32", chunks=(64, 3))
    made[:] = X
    monkeypatch.setattr(conversion, "BLOCK", 70)
    monkeypatch.setattr(conversion, "SMALL", 0 if is_large else 1 << 28)
    rows = as_rows(made)
    np.testing.assert_array_equal(rows, X)
    assert is_mapped(rows) == is_large
    assert rows.dtype == np.float32
