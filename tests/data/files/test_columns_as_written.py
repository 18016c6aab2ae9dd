"""TMP"""

from pathlib import Path

import numpy as np
import pytest

from nvisa.data import DataError, read_table


def write(text, name="x.csv", encoding="utf-8"):
    Path(name).write_bytes(text.encode(encoding))
    return name


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


def test_another_encoding_is_said(write):
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


def test_columns_that_are_no_features_by_name(write):
    write("x,who,when,y\n1,ann,2020-01-01,2\n3,bob,2020-01-02,4\n")
    table = read_table("x.csv", id_column="who", drop=["when"])
    assert (table.columns, table.row_names, table.left_out) == (["x", "y"], ["ann", "bob"], ("when",))
    with pytest.raises(DataError, match=r"expected a column of row names 'whom', got none\. Try who"):
        read_table("x.csv", id_column="whom")
    with pytest.raises(DataError, match=r"'who' \(row 0: 'ann'\), 'when' .*id_column= if one names the rows"):
        read_table("x.csv")
