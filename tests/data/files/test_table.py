"""`read_table`: arrays and archives, what is refused for which file, and what is said of what cannot be read."""

import io
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from nvisa.data import DataError, read_table

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def saved(path, *args, **named):
    (np.savez if path.suffix == ".npz" else np.save)(path, *args, **named)
    return path


def test_float32_npy_is_mapped_not_copied(tmp_path):
    path = saved(tmp_path / "x.npy", X)
    table = read_table(path)
    assert isinstance(table.X, np.memmap)
    assert not table.X.flags.writeable
    np.testing.assert_array_equal(table.X, X)
    assert (table.columns, table.feature_shape, table.labels, table.row_names) == (None,) * 4
    assert table.source == str(path)
    with path.open("r+b") as file:  # the proof: what changes on disk changes in the array
        file.seek(-4, io.SEEK_END)
        file.write(np.float32(7).tobytes())
    assert table.X[-1, -1] == 7


@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4", ">f8", "i8", "u1", "?"])
def test_other_numbers_become_floats_with_the_same_values(tmp_path, dtype):
    array = (np.arange(12) % 2 if dtype == "?" else np.arange(12)).reshape(4, 3).astype(dtype)
    table = read_table(saved(tmp_path / "x.npy", array))
    assert table.X.dtype == (np.float64 if dtype.endswith("f8") else np.float32)
    np.testing.assert_array_equal(table.X, array.astype(float))


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 4)] * 4)))
def test_uint8_images_are_flattened_and_scaled(tmp_path_factory, images):
    table = read_table(saved(tmp_path_factory.mktemp("x") / "x.npy", images))
    assert table.feature_shape == images.shape[1:]
    assert table.X.dtype == np.float32
    np.testing.assert_allclose(table.X.reshape(images.shape) * 255, images, rtol=1e-6)


def test_the_brightest_pixel_is_exactly_one_and_float_images_keep_their_values(tmp_path):
    images = np.array([[[0, 255]], [[128, 3]]], dtype=np.uint8)
    assert read_table(saved(tmp_path / "x.npy", images)).X[0].tolist() == [0.0, 1.0]
    table = read_table(saved(tmp_path / "x.npy", images.astype(np.float32)))
    assert table.X[0].tolist() == [0.0, 255.0]
    assert isinstance(table.X, np.memmap)


def test_nan_and_inf_pass_for_the_clusterer_to_judge(tmp_path):
    array = np.array([[np.nan, 1.0], [np.inf, -np.inf]])
    np.testing.assert_array_equal(read_table(saved(tmp_path / "x.npy", array)).X, array)


@pytest.mark.parametrize("key", ["X", "x", "X_train", "x_train", "data", "anything"])
@pytest.mark.parametrize("label_key", ["y", "y_train", "labels", None])
def test_npz_keys(tmp_path, key, label_key):
    labels = {} if label_key is None else {label_key: np.arange(6)}
    table = read_table(saved(tmp_path / "x.npz", **labels, **{key: X}))
    np.testing.assert_array_equal(table.X, X)
    assert table.labels is None if label_key is None else table.labels.tolist() == [*range(6)]
    assert table.source.endswith(f"x.npz[{key}]")


def test_the_names_of_images_go_with_their_features(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(3), names=np.array(["a/1.png", "a/2.png", "b/1.png"]))
    np.savez(tmp_path / "b.npz", X=np.eye(3), names=np.array(["cat", "dog"]))  # of something else
    assert read_table(tmp_path / "a.npz").row_names == ["a/1.png", "a/2.png", "b/1.png"]
    assert read_table(tmp_path / "b.npz").row_names is None


def test_a_feature_file_is_restored(tmp_path):
    x, scale = np.arange(6, dtype=np.uint8).reshape(2, 3), np.array([1, 2, 4], dtype=np.float32)
    arrays_ = {"x_train": x, "x_test": x[:1], "y_train": np.array([1, 0]), "scale": scale, "offset": -scale}
    table = read_table(saved(tmp_path / "f.npz", **arrays_))
    np.testing.assert_array_equal(table.X, x * scale - scale)
    assert table.labels.tolist() == [1, 0]


@pytest.mark.parametrize("option", [{"label_column": "1"}, {"id_column": "1"}, {"drop": ["1"]}])
def test_a_column_that_has_no_name_to_be_found_by_is_not_silently_a_feature(tmp_path, option):
    np.save(tmp_path / "t.npy", np.eye(3))
    (tmp_path / "folder").mkdir()
    for source in (tmp_path / "t.npy", tmp_path / "folder"):
        with pytest.raises(DataError, match=rf"to find columns by name, got a.*Try without {next(iter(option))}\."):
            read_table(source, **option)


@pytest.mark.parametrize("option", [{"image_size": 28}, {"labels_from_folders": True}])
def test_what_is_for_folders_of_images_is_refused_for_a_file(tmp_path, option):
    (tmp_path / "t.csv").write_text("a\n1\n")
    np.save(tmp_path / "t.npy", np.eye(3))
    for name in ("t.csv", "t.npy"):
        with pytest.raises(
            DataError, match=rf"{name}: expected a folder of images, got a \..*Try without {next(iter(option))}\."
        ):
            read_table(tmp_path / name, **option)


FRAME = pd.DataFrame({"a": [1.5, 2.5], "b": [3, 4], "c": [True, False]})


class Harmless:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def encoded(array, save=np.save, **named):
    buffer = io.BytesIO()
    save(buffer, *([] if array is None else [array]), **named)
    return buffer.getvalue()


def parquet():
    buffer = io.BytesIO()
    FRAME.to_parquet(buffer)
    return buffer.getvalue()


NPY, NPZ, PARQUET = encoded(X), encoded(None, np.savez, X=X), parquet()
OBJECTS = np.array([[Harmless()]], dtype=object)
BAD = {
    "nothing.npy": (None, "nothing there"),
    "x.xlsx": (b"PK", r"\.npy, \.npz, \.csv, \.parquet or a folder.*'\.xlsx'"),
    "x.csv.gz": (b"\x1f\x8b", "unreadable"),
    "empty.npy": (b"", "unreadable"),
    "cut.npy": (NPY[:-1], "unreadable"),
    "cut_header.npy": (NPY[:40], "unreadable"),
    "text.npy": (b"hello world", "unreadable"),
    "archive.npy": (NPZ, r"got an archive.*\.npz"),
    "pickle.npy": (encoded(OBJECTS), "objects, which are refused"),
    "bare_pickle.npy": (pickle.dumps(Harmless()), "unreadable"),
    "words.npy": (encoded(np.array([["a", "b"]])), "expected numbers, got dtype <U1"),
    "complex.npy": (encoded(X + 1j), "expected numbers, got dtype complex"),
    "vector.npy": (encoded(X[0]), r"got shape \(3,\).*reshape"),
    "scalar.npy": (encoded(np.float32(1)), r"got shape \(\)"),
    "five.npy": (encoded(X[None, None, None]), r"got shape \(1, 1, 1, 6, 3\)"),
    "no_rows.npy": (encoded(X[:0]), r"got shape \(0, 3\)"),
    "huge.npy": (encoded(np.array([[1e300]])), r"below 3\.4e\+38"),
    "empty.npz": (b"", "unreadable"),
    "cut.npz": (NPZ[:-30], "unreadable"),
    "array.npz": (NPY, r"got a single array.*\.npy"),
    "pickle.npz": (encoded(None, np.savez, X=OBJECTS), "object arrays are refused"),
    "rotten.npz": (NPZ.replace(X.tobytes(), X.tobytes()[::-1]), "unreadable.*CRC"),
    "two.npz": (encoded(None, np.savez, a=X, b=X), "got a, b"),
    "none.npz": (encoded(None, np.savez), "got none"),
    "labels.npz": (encoded(None, np.savez, X=X, y=np.arange(5)), r"expected y of shape \(6,\).*\(5,\)"),
    "empty.csv": (b"", "empty file"),
    "blank.csv": (b"\n \n", "empty file"),
    "header.csv": (b"a,b\n", r"shape \(0, 2\)"),
    "ragged.csv": (b"a,b\n1,2\n1,2,3,4\n", "got more in row 1"),
    "wide.csv": (b"a,b\n1,2,\n3,4,5\n", r"expected 2 cells in each line.*got more in row 1"),
    "late.csv": (b"a,b\n" + b"1,2,\n" * 60 + b"1,2,3\n", r"got more in row 60"),
    "nameless.csv": (b"a,b\nr,1,2\ns,3,4\n", r"got more in row 0 .* a name for each column"),
    "words.csv": (b"a\nx\n", "got 1 of 1"),
    "bytes.csv": (bytes(range(256)), "unreadable"),
    "deep.csv": (b'v,w\n"' + b"[" * 50_000 + b'",1\n"[]",2\n', "expected numeric columns|unreadable"),
    "brackets.csv": (b'v,w\n"' + b"[" * 50_000 + b"]" * 50_000 + b'",1\n', "got 1 of 2 that are not"),
    "digits.csv": (b"v;w\n" + b"[" + b"9" * 400 + b", 1];1\n", "got 1 of 2 that are not"),
    "digits_by_key.csv": (b"v;w\n" + b'{"a": ' + b"9" * 400 + b"};1\n", "got 1 of 2 that are not"),
    "huge.csv": (b"a\n1e300\n", r"below 3\.4e\+38"),
    "same.csv": (b"age,age,spend\n1,2,3\n", "of its own for each column, got age more than once"),
    "twice.csv": (b"a,a ,b\n1,2,3\n", "of its own for each column, got a more than once"),
    "empty.parquet": (b"", "unreadable"),
    "cut.parquet": (PARQUET[:-8], "unreadable"),
    "text.parquet": (b"a,b\n1,2\n", "unreadable"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_file_is_a_data_error_that_names_it(tmp_path, name):
    content, match = BAD[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        read_table(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.index("expected") < message.index("got")


@pytest.mark.parametrize("cut", range(0, len(NPZ), 97))
def test_no_cut_of_an_archive_escapes_as_another_error(tmp_path, cut):
    (tmp_path / "x.npz").write_bytes(NPZ[:cut])
    with pytest.raises(DataError):
        read_table(tmp_path / "x.npz")


@pytest.mark.parametrize(("name", "package"), [("t.csv", "pandas"), ("", "PIL")])
def test_without_the_extra_the_way_to_get_it_is_told(tmp_path, monkeypatch, name, package):
    Image.new("L", (2, 3)).save(tmp_path / "1.png")
    FRAME.to_csv(tmp_path / "t.csv")
    for module in [m for m in sys.modules if m.startswith(("nvisa.data.files.columns", "nvisa.data.files.images"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("nvisa.data.files.columns", raising=False)
    monkeypatch.delattr("nvisa.data.files.images", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r"nvisa\[io\]"):
        read_table(tmp_path / name)
