"""A file of a kind that is not read: the error's command makes it one that is, and its rows are the same."""

import re
import zipfile

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch
from scipy.sparse import csr_array
from sklearn.datasets import dump_svmlight_file

from nvisa.data import DataError, read_table
from nvisa.data.files.other_kinds import CODE, PANDAS

X = np.random.default_rng(0).normal(size=(6, 3)).round(3)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
WRITE = {
    ".jsonl": lambda path: FRAME.to_json(path, orient="records", lines=True),
    ".json": lambda path: FRAME.to_json(path, orient="records"),
    ".feather": FRAME.to_feather,
    ".arrow": FRAME.to_feather,
    ".orc": FRAME.to_orc,
    ".dta": lambda path: FRAME.to_stata(path, write_index=False),
    ".mtx": lambda path: scipy.io.mmwrite(path, csr_array(X)),
    ".libsvm": lambda path: dump_svmlight_file(X, np.zeros(6), str(path)),
    ".mat": lambda path: scipy.io.savemat(path, {"NAME": X}),
    ".pth": lambda path: torch.save(torch.from_numpy(X), path),
    ".arff": lambda path: path.write_text(
        "@relation x\n" + "".join(f"@attribute {name} numeric\n" for name in FRAME) + "@data\n"
        + FRAME.to_csv(index=False, header=False)
    ),
}  # fmt: skip


def refused(path):
    with pytest.raises(DataError) as caught:
        read_table(path)
    return str(caught.value)


@pytest.mark.parametrize("suffix", WRITE)
def test_the_command_in_the_refusal_writes_the_same_rows(tmp_path, suffix):
    path = tmp_path / f"my rows{suffix}"
    WRITE[suffix](path)
    code = re.search(r'Try python -c "(.*)"\.$', refused(path))[1]
    exec(code, {})
    (made,) = set(tmp_path.iterdir()) - {path}
    found = read_table(made).X
    np.testing.assert_allclose(found if isinstance(found, np.ndarray) else found.toarray(), X, rtol=1e-12)


def test_each_reader_that_is_named_is_one_of_pandas():
    assert all(hasattr(pd, reader) for reader in PANDAS.values())
    assert not set(PANDAS) & set(CODE)


def test_an_archive_is_unpacked_first_whatever_is_in_it(tmp_path):
    path = tmp_path / "a b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.csv.gz", b"")
    assert refused(path).endswith(f"Try python -m zipfile -e '{path}' FOLDER, and what it holds.")
    path.rename(tmp_path / "t.tar.gz")
    assert refused(tmp_path / "t.tar.gz").endswith(
        f"Try python -m tarfile -e {tmp_path}/t.tar.gz FOLDER, and what it holds."
    )


@pytest.mark.parametrize("name", ["iris.data", "t.tab"])
def test_text_by_its_older_names(tmp_path, name):
    (tmp_path / name).write_text(FRAME.to_csv(index=False, header=False, sep="\t" if name.endswith("tab") else ","))
    np.testing.assert_array_equal(read_table(tmp_path / name).X, X)


def test_binary_data_under_a_name_of_text_is_refused(tmp_path):
    path = tmp_path / "x.data"
    path.write_bytes(np.random.default_rng(0).bytes(4000))
    assert "expected" in refused(path)


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (np.zeros((4, 2, 8, 8, 3)), "Try X.reshape(len(X), -1)."),
        (np.zeros(4, [("a", "f4"), ("b", "f4")]), "structured_to_unstructured"),
        (np.zeros(4), "try X.reshape(-1, 1)."),
    ],
)
def test_arrays_of_other_axes_are_told_how_to_become_rows(tmp_path, array, advice):
    np.save(tmp_path / "x.npy", array)
    assert advice in refused(tmp_path / "x.npy")


def test_a_folder_of_tables_is_told_that_they_are_to_be_joined(tmp_path):
    for name in ("1.csv", "2.csv"):
        FRAME.to_csv(tmp_path / name)
    assert "got only 2 .csv. Try another folder, or one file of it; tables in several" in refused(tmp_path)
