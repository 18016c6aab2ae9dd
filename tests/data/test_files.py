"""`read_table`: what every kind of file becomes, and what is said about the ones that cannot be read."""

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


# .npy -------------------------------------------------------------------------------------------------


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
def test_other_numbers_become_float32_with_the_same_values(tmp_path, dtype):
    array = (np.arange(12) % 2 if dtype == "?" else np.arange(12)).reshape(4, 3).astype(dtype)
    table = read_table(saved(tmp_path / "x.npy", array))
    assert table.X.dtype == np.float32
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


# .npz -------------------------------------------------------------------------------------------------


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


# .csv and .parquet ------------------------------------------------------------------------------------


FRAME = pd.DataFrame({"a": [1.5, 2.5], "b": [3, 4], "c": [True, False]})


@pytest.mark.parametrize("sep", [",", ";", "\t"])
def test_csv_columns_in_order(tmp_path, sep):
    FRAME.to_csv(tmp_path / "t.csv", index=False, sep=sep)
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ["a", "b", "c"]
    assert table.X.dtype == np.float32
    assert table.X.flags.c_contiguous
    assert table.X.tolist() == [[1.5, 3, 1], [2.5, 4, 0]]
    assert table.row_names is None


@pytest.mark.parametrize(
    ("text", "columns", "first"),
    [
        ("1,2.5\n3,4\n", None, [1, 2.5]),  # no header: no row may be lost
        ("1,,3\n4,5,6\n", None, [1, np.nan, 3]),
        ("-1e3,nan\n3,4\n", None, [-1000, np.nan]),
        ("0,1\n5,6\n", ["0", "1"], [5, 6]),  # the header of DataFrame(X).to_csv(index=False)
        ("\ufeffa,b\n5,6\n", ["a", "b"], [5, 6]),  # Excel's byte order mark
        ("\n\na,b\n5,6\n", ["a", "b"], [5, 6]),
        ('"a, or b",c\n5,6\n', ["a, or b", "c"], [5, 6]),
        ("a\n5\n", ["a"], [5]),
        ("a,b\n5,\n", ["a", "b"], [5, np.nan]),
        ("a,b,\n5,6,\n", ["a", "b"], [5, 6]),  # lines that end in a separator
        ("a,b\n5,6,\n7,8,\n", ["a", "b"], [5, 6]),  # all but the header
        ("a,b\n5,6,,\n7,8,,\n", ["a", "b"], [5, 6]),
        ("5,6,\n7,8,\n", None, [5, 6]),
        ("1  2.5\n3 4\n", None, [1, 2.5]),  # blanks
    ],
)
def test_csv_headers(tmp_path, text, columns, first):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    table = read_table(tmp_path / "t.csv")
    assert table.columns == columns
    np.testing.assert_array_equal(table.X[0], np.float32(first))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a;b\n-1,5;2\n3;4\n", [[-1.5, 2], [3, 4]]),
        ("a\tb\n1,5\t2\n3\t4\n", [[1.5, 2], [3, 4]]),
        ("a,b\n1,5\n2,6\n", [[1, 5], [2, 6]]),  # a comma that separates
        ("sep=;\na;b\n1,5;2\n", [[1.5, 2]]),  # Excel's hint
    ],
)
def test_numbers_with_decimal_commas(tmp_path, text, rows):
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "t.csv").write_text(text, encoding=encoding)
        table = read_table(tmp_path / "t.csv")
        assert (table.X.tolist(), table.columns) == (rows, ["a", "b"])


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1,5;2,5\n3,5;4,5\n", [[1.5, 2.5], [3.5, 4.5]]),  # a comma cuts it into three
        ("1,5\t2\n3,5\t4\n", [[1.5, 2], [3.5, 4]]),  # as many cells as by the comma
        ("1,5;2\n3;4\n", [[1.5, 2], [3, 4]]),
        ("1,5\n2,6\n", [[1, 5], [2, 6]]),
    ],
)
def test_without_a_header_a_decimal_comma_is_no_separator(tmp_path, text, rows):
    (tmp_path / "t.csv").write_text(text)
    table = read_table(tmp_path / "t.csv")
    assert (table.X.tolist(), table.columns) == (rows, None)


def test_beside_numbers_with_a_point_a_comma_is_no_decimal_one(tmp_path):
    (tmp_path / "t.csv").write_text("a;b\n1,5;2.5\n")
    with pytest.raises(DataError, match=r"got 1 of 2 .*'a' \(row 0: '1,5'\)"):
        read_table(tmp_path / "t.csv")


def test_another_encoding_than_utf_8_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("größe\n5\n", encoding="cp1252")
    with pytest.warns(UserWarning, match="is not UTF-8; it is read as Windows-1252"):
        assert read_table(tmp_path / "t.csv").columns == ["größe"]


@pytest.mark.parametrize("ids", ["3,1\n3,2\n", "3.5,1\n4.5,2\n"])
def test_a_column_called_id_that_repeats_or_has_fractions_is_a_feature(tmp_path, ids):
    (tmp_path / "t.csv").write_text(f"id,a\n{ids}")
    table = read_table(tmp_path / "t.csv")
    assert (table.columns, table.row_names) == (["id", "a"], None)


def test_a_header_that_looks_like_a_row_is_told(tmp_path):
    (tmp_path / "iris.csv").write_text("5.1,3.5,setosa\n4.9,3.0,setosa\n")
    with pytest.warns(UserWarning, match=r"first line is read as the names .* numbers \(5.1, 3.5\)"):
        table = read_table(tmp_path / "iris.csv", drop_text=True)
    assert table.columns == ["5.1", "3.5"]
    (tmp_path / "frame.csv").write_text("0,1,label\n5,6,7\n")  # DataFrame(X).assign(label=y).to_csv(index=False)
    assert read_table(tmp_path / "frame.csv").columns == ["0", "1", "label"]


@pytest.mark.parametrize("names", [["a", "b"], [0, 1]])
def test_the_index_that_pandas_writes_names_rows_and_is_no_feature(tmp_path, names):
    frame = pd.DataFrame([[1, 2], [3, 4]], index=["r", "s"], columns=names)
    frame.to_csv(tmp_path / "t.csv")
    frame.rename(columns=str).to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        table = read_table(tmp_path / name)
        assert table.X.tolist() == [[1, 2], [3, 4]]
        assert table.row_names == ["r", "s"]
        assert table.columns == [str(name) for name in names]


@pytest.mark.parametrize(
    ("text", "id_column"), [("id,a\n3,1\n4,2\n", None), (",a\n3,1\n4,2\n", None), ("a,key\n1,3\n2,4\n", "key")]
)
def test_running_numbers_are_the_names_that_the_file_gave(tmp_path, text, id_column):
    (tmp_path / "t.csv").write_text(text)
    table = read_table(tmp_path / "t.csv", id_column=id_column)
    assert (table.X.tolist(), table.row_names) == ([[1], [2]], ["3", "4"])


@pytest.mark.parametrize("ids", ["000 001 002", "NA None nan1", "1 01 001", "12345678901234567890123 2 3"])
@pytest.mark.parametrize(
    ("header", "line", "id_column"),
    [
        ("id;a", "{};1,5", None),
        ("id,a", "{},1.5,", "id"),
        (",a", "{},1.5", None),
        ("a,b,who", "1.5,0,{}", "who"),
    ],
)
def test_row_names_are_as_the_file_writes_them(tmp_path, header, line, ids, id_column):
    (tmp_path / "t.csv").write_text("\n".join([header, *map(line.format, ids.split())]))
    table = read_table(tmp_path / "t.csv", id_column=id_column)
    assert table.row_names == ids.split()
    assert table.X[:, 0].tolist() == [1.5] * 3


def test_parquet_with_missing_values(tmp_path):
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [0.5, np.nan]})
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    np.testing.assert_array_equal(table.X, [[1, 0.5], [np.nan, np.nan]])
    assert table.columns == ["a", "b"]


def write_mixed(path):
    frame = pd.DataFrame({"town": ["Oslo", "Bern"], "x": [1.0, 2.0], "kind": ["u", "v"]})
    getattr(frame, f"to_{path.suffix[1:]}")(path, index=False)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_text_columns_are_refused_by_name_or_dropped(tmp_path, name):
    path = write_mixed(tmp_path / name)
    with pytest.raises(DataError, match=r"got 2 of 3 .*'town' \(row 0: 'Oslo'\), 'kind'.*drop_text=True"):
        read_table(path)
    table = read_table(path, drop_text=True)
    assert (table.columns, table.X.tolist()) == (["x"], [[1.0], [2.0]])


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_the_label_column_is_no_feature(tmp_path, name):
    table = read_table(write_mixed(tmp_path / name), label_column="kind", drop_text=True)
    assert table.labels.tolist() == ["u", "v"]
    assert table.columns == ["x"]


def test_the_label_column_by_position_without_a_header(tmp_path):
    (tmp_path / "t.csv").write_text("1,2,0\n3,4,1\n")
    for column in (2, "2"):
        table = read_table(tmp_path / "t.csv", label_column=column)
        assert (table.X.tolist(), table.labels.tolist(), table.columns) == ([[1, 2], [3, 4]], [0, 1], None)


def test_the_column_of_row_names_by_position_without_a_header(tmp_path):
    (tmp_path / "t.csv").write_text("07,1,2\n8,3,4\n")
    table = read_table(tmp_path / "t.csv", id_column="0")
    assert (table.X.tolist(), table.row_names, table.columns) == ([[1, 2], [3, 4]], ["07", "8"], None)


@pytest.mark.parametrize("option", [{"label_column": "1"}, {"id_column": "1"}, {"drop": ["1"]}])
def test_a_column_that_has_no_name_to_be_found_by_is_not_silently_a_feature(tmp_path, option):
    np.save(tmp_path / "t.npy", np.eye(3))
    (tmp_path / "folder").mkdir()
    for source in (tmp_path / "t.npy", tmp_path / "folder"):
        with pytest.raises(DataError, match=rf"to find columns by name \({next(iter(option))}\)"):
            read_table(source, **option)


@pytest.mark.parametrize("option", [{"image_size": 28}, {"labels_from_folders": True}])
def test_what_is_for_folders_of_images_is_refused_for_a_file(tmp_path, option):
    (tmp_path / "t.csv").write_text("a\n1\n")
    np.save(tmp_path / "t.npy", np.eye(3))
    for name in ("t.csv", "t.npy"):
        with pytest.raises(DataError, match=rf"{name}: expected a folder of images \({next(iter(option))}\)"):
            read_table(tmp_path / name, **option)


def test_one_odd_cell_is_shown(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,?\n")
    with pytest.raises(DataError, match=r"'b' \(row 1: '\?'\)"):
        read_table(tmp_path / "t.csv")


# Folders of images ------------------------------------------------------------------------------------


def draw(path, pixels, mode=None, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(path, **settings)


GREY = np.array([[0, 51], [102, 255], [7, 9]], dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, size=(3, 2, 3), dtype=np.uint8)


def test_grey_images_in_sorted_order_below_the_folder(tmp_path):
    draw(tmp_path / "b" / "2.png", GREY // 2)
    draw(tmp_path / "a" / "deep" / "1.PNG", GREY)
    draw(tmp_path / "c.png", GREY // 3)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._c.png").write_text("macOS litter")
    table = read_table(tmp_path)
    assert table.row_names == ["a/deep/1.PNG", "b/2.png", "c.png"]
    assert (table.feature_shape, table.labels, table.X.dtype) == ((3, 2), None, np.float32)
    expected = [GREY.reshape(-1), (GREY // 2).reshape(-1), (GREY // 3).reshape(-1)]
    np.testing.assert_array_equal(table.X, np.float32(expected) / np.float32(255))


def test_color_keeps_its_channels_and_grey_among_it_is_widened(tmp_path):
    draw(tmp_path / "1.png", COLOUR)
    draw(tmp_path / "2.png", GREY)
    table = read_table(tmp_path)
    assert table.feature_shape == (3, 2, 3)
    pictures = table.X.reshape(2, 3, 2, 3) * 255
    np.testing.assert_allclose(pictures[0], COLOUR, rtol=1e-6)
    np.testing.assert_allclose(pictures[1], np.repeat(GREY[:, :, None], 3, axis=2), rtol=1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1"])
def test_other_modes_are_converted(tmp_path, mode):
    white = np.full((3, 2, 3), 255, dtype=np.uint8)
    draw(tmp_path / "1.png", white, mode)
    table = read_table(tmp_path)
    assert table.feature_shape == ((3, 2, 3) if mode in ("RGBA", "P") else (3, 2))
    assert (table.X == 1).all()


@pytest.mark.parametrize("with_color", [False, True])
def test_sixteen_bit_grey_is_not_clipped(tmp_path, with_color):
    levels = np.array([[0, 257 * 10], [257 * 100, 65535], [257, 514]], dtype=np.uint16)
    draw(tmp_path / "1.png", levels)
    if with_color:
        draw(tmp_path / "2.png", COLOUR)
    table = read_table(tmp_path)
    picture = table.X[0].reshape(table.feature_shape)
    np.testing.assert_allclose(picture[..., 0] if with_color else picture, levels / 65535, atol=1e-6)


def test_jpeg_turned_by_exif_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees
    picture = np.zeros((16, 32), dtype=np.uint8)
    picture[:, :16] = 255
    draw(tmp_path / "1.jpg", picture, exif=exif)
    table = read_table(tmp_path)
    assert table.feature_shape == (32, 16)
    upright = table.X.reshape(32, 16)
    assert upright[:16].mean() > 0.95
    assert upright[16:].mean() < 0.05


def test_sizes_must_agree_unless_one_is_asked_for(tmp_path):
    for name in ("1.png", "2.png"):
        draw(tmp_path / name, np.full((8, 6), 51, dtype=np.uint8))
    draw(tmp_path / "3.png", np.full((4, 4), 51, dtype=np.uint8))
    with pytest.raises(DataError, match=r"2 sizes, most often 8 x 6 \(2\).*image_size=\(8, 6\)"):
        read_table(tmp_path)
    for size, shape in ((5, (5, 5)), ((4, 2), (4, 2))):
        table = read_table(tmp_path, image_size=size)
        assert table.feature_shape == shape
        np.testing.assert_allclose(table.X, 0.2, rtol=1e-6)
    with pytest.raises(DataError, match="image_size"):
        read_table(tmp_path, image_size=0)


def test_folders_are_labels_only_when_asked(tmp_path):
    draw(tmp_path / "cat" / "x" / "1.png", GREY)
    draw(tmp_path / "dog" / "1.png", GREY)
    assert read_table(tmp_path).labels is None
    assert read_table(tmp_path, labels_from_folders=True).labels.tolist() == ["cat", "dog"]
    draw(tmp_path / "stray.png", GREY)
    with pytest.raises(DataError, match=r"1 beside them, such as 'stray\.png'"):
        read_table(tmp_path, labels_from_folders=True)


# What cannot be read ----------------------------------------------------------------------------------


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
    "x.csv.gz": (b"\x1f\x8b", r"unpack what is compressed first"),
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
    "ragged.csv": (b"a,b\n1,2\n1,2,3,4\n", "unreadable"),
    "wide.csv": (b"a,b\n1,2,\n3,4,5\n", r"expected 2 cells in each line.*got more in row 1"),
    "late.csv": (b"a,b\n" + b"1,2,\n" * 60 + b"1,2,3\n", r"got more in row 60"),
    "nameless.csv": (b"a,b\nr,1,2\ns,3,4\n", r"got more in row 0 .* a name for each column"),
    "words.csv": (b"a\nx\n", "got 1 of 1"),
    "bytes.csv": (bytes(range(256)), "unreadable"),
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


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, size=(32, 32), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"hello", png()[:20], png()[:300]])
def test_a_bad_image_is_named(tmp_path, content):
    (tmp_path / "good.png").write_bytes(png())
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png: expected a .*PNG or JPEG image, got an unreadable file"):
        read_table(tmp_path)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match=r"expected images \(\.jpeg, \.jpg, \.png\), got none"):
        read_table(tmp_path)


def test_a_missing_label_column_and_columns_of_text_only(tmp_path):
    path = write_mixed(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"label column 'kin', got none\. Try kind"):
        read_table(path, label_column="kin")
    with pytest.raises(DataError, match="expected a numeric column, got none"):
        read_table(path, label_column="x", drop_text=True)


@pytest.mark.parametrize("cut", range(0, len(NPZ), 97))
def test_no_cut_of_an_archive_escapes_as_another_error(tmp_path, cut):
    (tmp_path / "x.npz").write_bytes(NPZ[:cut])
    with pytest.raises(DataError):
        read_table(tmp_path / "x.npz")


@pytest.mark.parametrize(("name", "package"), [("t.csv", "pandas"), ("", "PIL")])
def test_without_the_extra_the_way_to_get_it_is_told(tmp_path, monkeypatch, name, package):
    draw(tmp_path / "1.png", GREY)
    FRAME.to_csv(tmp_path / "t.csv")
    for module in [m for m in sys.modules if m.startswith(("nvisa.data.files.columns", "nvisa.data.files.images"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("nvisa.data.files.columns", raising=False)
    monkeypatch.delattr("nvisa.data.files.images", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r"nvisa\[io\]"):
        read_table(tmp_path / name)
