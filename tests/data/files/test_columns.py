"""Columns of .csv and .parquet: how files are written, what is a feature, a label, a name."""

import numpy as np
import pandas as pd
import pytest

from nvisa.data import DataError, read_table
from text_files import write


@pytest.mark.parametrize(
    ("text", "encoding", "columns", "row"),
    [
        ("a;b\n1,5;2\n3,25;4\n", "utf-8", ["a", "b"], [1.5, 2]),  # a European spreadsheet
        ("a;b\n1.5;2\n3,25;4\n", "utf-8", None, None),  # both marks: nobody can tell, so b is refused by name
        ("sep=;\na;b\n1;2\n", "utf-8", ["a", "b"], [1, 2]),  # what Excel writes for itself
        ("a\tb\n1\t2\n", "utf-16", ["a", "b"], [1, 2]),  # Excel's "Unicode text"
        ("größe,b\n1,2\n", "cp1252", ["größe", "b"], [1, 2]),
        ('"a, in m";"b, in s"\n1;2\n', "utf-8", ["a, in m", "b, in s"], [1, 2]),
        ("a, b\n1, 2\n", "utf-8", ["a", "b"], [1, 2]),
        ("a,b,\n1,2,\n3,4,\n", "utf-8", ["a", "b"], [1, 2]),  # lines that end in a separator
        ("a|b\n1|2\n", "utf-8", ["a", "b"], [1, 2]),
        ("1.0 2.0\n3.0 4.0\n", "utf-8", None, [1, 2]),  # numpy.savetxt
        ("a b,c\n1,2\n", "utf-8", ["a b", "c"], [1, 2]),  # a blank in a name cuts nothing
    ],
)
@pytest.mark.filterwarnings("ignore:.*is not UTF-8")
def test_how_spreadsheets_write(text, encoding, columns, row):
    path = write(text, encoding=encoding)
    if row is None:
        with pytest.raises(DataError, match="expected numeric columns"):
            read_table(path)
        return
    table = read_table(path)
    assert table.columns == columns
    np.testing.assert_array_equal(table.X[0], np.float32(row))


def test_another_encoding_is_said():
    with pytest.warns(UserWarning, match=r"x\.csv is not UTF-8; it is read as Windows-1252"):
        read_table(write("größe,b\n1,2\n", encoding="cp1252"))


@pytest.mark.parametrize(
    ("header", "values", "is_key"),
    [
        ("customer_id", "7 3 5", True),
        ("CustomerID", "a7 b3 c5", True),
        ("ID", "7 3 5", True),
        ("customer_id", "7 3 7", False),  # repeats: it names no row
        ("id", "0.5 1.5 2.5", False),  # a measurement
        ("paid", "7 3 5", False),
        ("HUMID", "7 3 5", False),
        ("a", "7 3 5", False),
    ],
)
def test_a_first_column_that_names_the_rows_is_no_feature(header, values, is_key):
    names = values.split()
    table = read_table(write(f"{header},x\n" + "".join(f"{name},{i}\n" for i, name in enumerate(names))))
    assert (table.row_names == names) is is_key
    assert (header in table.columns) is not is_key


def test_columns_that_are_no_features_by_name():
    write("x,who,when,y\n1,ann,2020-01-01,2\n3,bob,2020-01-02,4\n")
    table = read_table("x.csv", id_column="who", drop=["when"])
    assert (table.columns, table.row_names, table.left_out) == (["x", "y"], ["ann", "bob"], ("when",))
    with pytest.raises(DataError, match=r"expected a column of row names 'whom', got none\. Try who"):
        read_table("x.csv", id_column="whom")
    with pytest.raises(DataError, match=r"'who' \(row 0: 'ann'\), 'when' .*id_column if one names the rows"):
        read_table("x.csv")


FRAME = pd.DataFrame({"a": [1.5, 2.5], "b": [3, 4], "c": [True, False]})


@pytest.mark.parametrize("sep", [",", ";", "\t"])
def test_csv_columns_in_order(tmp_path, sep):
    FRAME.to_csv(tmp_path / "t.csv", index=False, sep=sep)
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ["a", "b", "c"]
    assert table.X.dtype == np.float64
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


def test_a_first_line_of_numbers_and_a_word_that_recurs_is_a_row(tmp_path):
    (tmp_path / "iris.csv").write_text("5.1,3.5,setosa\n4.9,3.0,setosa\n")
    table = read_table(tmp_path / "iris.csv", drop_text=True)
    assert (table.columns, len(table.X)) == (None, 2)
    assert [str(note) for note in table.notes] == ["the first line is a row, not names (if it is names: header=True)"]
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


def test_one_odd_cell_is_shown(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,?\n")
    with pytest.raises(DataError, match=r"'b' \(row 1: '\?'\)"):
        read_table(tmp_path / "t.csv")


def test_a_missing_label_column_and_columns_of_text_only(tmp_path):
    path = write_mixed(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"label column 'kin', got none\. Try kind"):
        read_table(path, label_column="kin")
    with pytest.raises(DataError, match="expected a numeric column, got none"):
        read_table(path, label_column="x", drop_text=True)
