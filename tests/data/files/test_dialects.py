"""How tables are written, and what is made of it: recognized, said, or refused with the option that says it."""

import decimal
import gzip
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import random_tables
from nvisa.data import DataError, Dialect, column_names, read_table
from text_files import write


def notes(table):
    return "; ".join(map(str, table.notes))


@pytest.mark.parametrize("block", range(4))
def test_random_tables_in_random_dialects_come_back_equal_or_are_asked_about(block):
    """10,000 of them are in benchmarks/dialects.json; a refused one is equal once everything is said."""
    kinds = []
    for seed in range(100_000 + 25 * block, 100_025 + 25 * block):
        case = random_tables.write(np.random.default_rng(seed))
        path = Path(f"t{case.suffix}")
        path.write_bytes(case.content)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is not UTF-8")
            try:
                table = read_table(path, drop_text=True)
            except DataError:
                table = None
            is_told = table is not None and ("first line is a row" in notes(table) or "one of decimals" in notes(table))
            kinds.append("refused" if table is None else "told" if is_told else "equal")
            if kinds[-1] != "equal":
                table = read_table(path, drop_text=True, dialect=case.dialect)
        assert table.X.shape == case.X.shape, (seed, case.text[:200])
        np.testing.assert_allclose(table.X, case.X, rtol=1e-14, atol=0, err_msg=str(seed))
    assert kinds.count("equal") > 12


# ---- decimals and thousands


MARKED = [
    ("a;b\n300;1\n2.512;2\n90.127;3\n", None),  # 2,512 or 2.512: nothing tells
    ("a,b\n300,1\n2.512,2\n90.127,3\n", None),
    ('a,b\n"300",1\n"2,512",2\n', None),
    ("a;b\n1.500;1\n2.512;2\n9.127;3\n", None),
    ("a;b\n300;1\n2.512;0.5\n90.127;3\n", None),  # the point is decimal in b, and whole numbers beside 2.512 are odd
    ("a;b\n2.512;0.5\n90.127;3\n", [2.512, 90.127]),
    ("a;b\n2.512;0,5\n90.127;3\n", [2512, 90127]),
    ("a;b\n2.512;1.234.567\n90.127;3\n", [2512, 90127]),
    ("a;b\n2,512;1,234,567\n90,127;3\n", [2512, 90127]),
    ("a;b\n2.512;1\n1500;3\n", [2.512, 1500]),  # who groups writes 1.500
    ("a;b\n1.234,5;1\n0,5;3\n", [1234.5, 0.5]),
    ('a,b\n"1,234.5",1\n0.5,3\n', [1234.5, 0.5]),
    ("a;b\n1 234,5;1\n0,5;3\n", [1234.5, 0.5]),
    ("a;b\n1'234.5;1\n0.5;3\n", [1234.5, 0.5]),
    ("a;b\n1\u202f234;1\n5;3\n", [1234, 5]),
    ("a;b\n12,34,567.5;1\n5;3\n", [1234567.5, 5]),  # lakh and crore
    ("a;b\n\u22121,5;1\n5;3\n", [-1.5, 5]),  # a minus of typographers
]


@pytest.mark.parametrize(("text", "values"), MARKED)
def test_decimals_and_thousands_are_settled_by_the_file_or_asked_for(text, values):
    if values is None:
        with pytest.raises(DataError, match=r"can be read in one way, got '.*' in row .* column 'a'.* thousands='.'"):
            read_table(write(text))
        return
    np.testing.assert_array_equal(read_table(write(text)).X[:, 0], values)


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ({"decimal": "."}, [300, 2.512]),
        ({"decimal": ","}, [300, 2512]),
        ({"thousands": "."}, [300, 2512]),
        ({"thousands": ""}, [300, 2.512]),
        ({"like": Dialect(decimal=",")}, [300, 2512]),
    ],
)
def test_what_is_said_or_was_so_in_another_file_settles_it(said, values):
    path = write("a;b\n300;1\n2.512;2\n")
    np.testing.assert_array_equal(read_table(path, dialect=Dialect(**said)).X[:, 0], values)


def test_a_column_in_doubt_that_is_no_feature_is_none_of_it():
    path = write("a;b\n300;1\n2.512;2\n")
    assert read_table(path, drop=["a"]).X.tolist() == [[1], [2]]
    assert read_table(path, label_column="a").labels.tolist() == ["300", "2.512"]


def test_what_was_understood_is_noted_with_the_argument_that_undoes_it():
    table = read_table(write("a;b\n1.234,5;1\n0,5;3\n"))
    assert notes(table) == (
        "cells between ';'; decimals after ',' (else decimal='.'); thousands grouped by '.' (else thousands='')"
    )


# ---- the first line


@pytest.mark.parametrize(
    ("text", "has_names"),
    [
        ("900,920,940,960,980\n0.1,0.2,0.1,0.3,0.2\n0.5,0.1,0.4,0.3,0.2\n", True),
        ("2019,2020,2021\n3,5,4\n2,7,1\n4,1,1\n", True),  # even steps beyond every column's range
        ("1,2,3,4,5,6\n9,3,5,1,4,4\n2,5,5,0,1,7\n8,1,1,2,9,3\n", True),  # hours
        (",900,920\ns1,0.1,0.2\ns2,0.5,0.3\n", True),
        (",900,920\n0,1,2\n1,5,3\n", True),
        ("id,900,920\ns1,0.1,0.2\ns2,0.5,0.3\ns3,0.5,0.3\n", True),
        ("1,2,3\n3,1,2\n2,3,1\n1,1,3\n2,1,2\n", None),  # ranks, or names
        ("0,1\n1,0\n1,1\n0,0\n", None),
        ("5,1\n5,2\n7,1\n", False),
        ("1,2,3,4,5\n6,7,8,9,10\n3,4,5,6,7\n", False),  # every row runs on
        ("5.1,3.5\n4.9,3.0\n4.7,3.2\n", False),
    ],
)
def test_numbers_in_the_first_line_are_names_or_a_row_by_what_is_below(text, has_names):
    path = write(text)
    if has_names is None:
        with pytest.raises(
            DataError, match=r"told from the rows, got numbers in it \(.*header \(yes if they are names"
        ):
            read_table(path)
    else:
        table = read_table(path)
        assert (table.columns is not None) is has_names
        assert "first line" in notes(table)
    n_lines = text.count("\n")
    for said in (True, False):
        assert len(read_table(path, drop_text=True, dialect=Dialect(header=said)).X) == n_lines - said


def test_the_names_of_a_commented_line_and_of_another_file():
    np.savetxt("x.csv", [[1.5, 2], [3, 4.5]], delimiter=",", header="width,height")
    table = read_table("x.csv")
    assert (table.columns, len(table.X)) == (["width", "height"], 2)
    assert "comment line above the rows names the columns" in notes(table)
    path = write("0,1\n1,0\n1,1\n")
    for followed in (True, False):
        assert (read_table(path, dialect=Dialect(like=Dialect(header=followed))).columns is not None) is followed


# ---- lines that are no rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# made 2024\n# unit: mm\na,b\n1,2\n3,4\n", "2 lines that begin with '#' left out"),
        ("% made 2024\na,b\n1,2\n3,4\n", "1 lines that begin with '%' left out"),
        ("a,b\n1,2\n# restarted\n3,4\n", "1 lines that begin with '#' left out"),
        ("Export of Monday\n\na,b\n1,2\n3,4\n", "1 lines above the table left out"),
        ("Export\nof Monday\na;b\n1;2\n3;4\n", "2 lines above the table left out"),
    ],
)
def test_remarks_and_titles_are_passed_over_and_counted(text, said):
    table = read_table(write(text))
    assert (table.columns, table.X.tolist()) == (["a", "b"], [[1, 2], [3, 4]])
    assert said in notes(table)


def test_a_remark_that_may_be_a_row_is_asked_about_and_a_name_is_no_remark():
    with pytest.raises(DataError, match=r"as many cells as a row: '#5,6'.*comment '#' to leave"):
        read_table(write("# made 2024\na,b\n1,2\n#5,6\n3,4\n"))
    assert len(read_table("x.csv", dialect=Dialect(comment="#")).X) == 2
    table = read_table(write("id,b\n#1,2\n#2,4\n"))
    assert (table.row_names, table.X.tolist()) == (["#1", "#2"], [[2], [4]])
    quoted = read_table(write('# made\nid,text,b\n1,"first\n# second",2\n3,x,4\n'), drop_text=True)
    assert quoted.X.tolist() == [[2], [4]]


def test_lines_can_be_skipped_and_cells_be_cut_as_is_said():
    path = write("made,by,hand\n1:5\n2:6\n")
    table = read_table(path, dialect=Dialect(skip_lines=1, separator=":", header=False))
    assert table.X.tolist() == [[1, 5], [2, 6]]
    np.save("x.npy", np.eye(2))
    with pytest.raises(DataError, match=r"expected a table in text, got a \.npy\. Try without separator"):
        read_table("x.npy", dialect=Dialect(separator=":"))


@pytest.mark.parametrize(
    ("text", "X"),
    [
        ("a\n1,5\n2,25\n", [[1.5], [2.25]]),  # one name: a comma that cuts nothing
        ("1,05\n2,5\n", [[1.05], [2.5]]),  # 05 is no number of its own
        ("1,5\n2\n", [[1.5], [2]]),
        ("1,5\n2,6\n", [[1, 5], [2, 6]]),
    ],
)
def test_a_comma_in_lines_of_digits(text, X):
    table = read_table(write(text))
    assert table.X.tolist() == X
    if len(X[0]) == 2:
        assert "two columns, not one of decimals (else decimal=',')" in notes(table)
        assert read_table("x.csv", dialect=Dialect(decimal=",")).X.tolist() == [[1.5], [2.6]]


# ---- vectors, databases, archives


@pytest.mark.parametrize(
    "form", [json.dumps, str, lambda v: "{" + ",".join(map(str, v)) + "}", lambda v: str(np.array(v))]
)
def test_vectors_written_in_a_cell_become_columns(form):
    X = [[0.5, -1.0, 2e-3], [4.0, 5.5, 1.0]]
    frame = pd.DataFrame({"id": ["r", "s"], "embedding": [form(row) for row in X], "n": [1, 2]})
    frame.to_csv("x.csv", index=False)
    table = read_table("x.csv")
    assert table.columns == ["embedding_0", "embedding_1", "embedding_2", "n"]
    np.testing.assert_array_equal(table.X, np.c_[X, [1, 2]])
    assert "'embedding' holds vectors of 3 numbers, a column each" in notes(table)


def test_vectors_of_parquet_objects_of_json_and_what_does_not_agree():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 8)).astype(np.float32)
    pd.DataFrame({"id": range(30), "text": "t", "e": list(X)}).to_parquet("x.parquet")
    table = read_table("x.parquet", drop_text=True)
    np.testing.assert_array_equal(table.X, X)
    assert (table.X.dtype, table.left_out) == (np.float32, ("text",))
    write('v\n"{""w"": 1, ""h"": 2}"\n"{""w"": 3, ""h"": null}"\n')
    table = read_table("x.csv")
    assert table.columns == ["v_w", "v_h"]
    np.testing.assert_array_equal(table.X, [[1, 2], [3, np.nan]])
    with pytest.raises(DataError, match=r"column 'v': expected vectors of one length, got 2 .* and 3 in row 1"):
        read_table(write('v,n\n"[1, 2]",1\n"[1, 2, 3]",2\n'))
    long = ",".join(["0.125"] * 30_000)  # more than csv's limit of a cell
    assert read_table(write(f'v\n"[{long}]"\n"[{long}]"\n')).X.shape == (2, 30_000)


def test_decimals_of_a_database_are_numbers():
    price = [decimal.Decimal("10.25"), None, decimal.Decimal("-3.50")]
    pq.write_table(pa.table({"sku": ["a", "b", "c"], "price": pa.array(price, pa.decimal128(12, 2))}), "x.parquet")
    table = read_table("x.parquet", id_column="sku")
    np.testing.assert_array_equal(table.X[:, 0], [10.25, np.nan, -3.5])


def test_whole_numbers_keep_what_float64_tells_apart():
    ns = 1_700_000_000_000_000_000
    times = [ns + 1_000_000_000 * i for i in range(3)]
    table = read_table(write("t\n" + "".join(f"{t}\n" for t in times)))
    assert np.diff(table.X[:, 0]).tolist() == [1e9, 1e9]
    with pytest.raises(DataError, match="column 't': expected whole numbers that float64 tells apart"):
        read_table(write("t\n" + "".join(f"{ns + 40 * i}\n" for i in range(3))))


def test_the_names_of_columns_without_their_rows():
    write("# made\nid;b\n1;2\n")
    pd.DataFrame({"x": [1], "y": [2]}).to_parquet("x.parquet")
    np.save("x.npy", np.eye(2))
    Path("y.csv.gz").write_bytes(gzip.compress(b"5,6,2\n7,1,8\n"))
    found = [column_names(name) for name in ("x.csv", "x.parquet", "x.npy", "y.csv.gz")]
    assert found == [["id", "b"], ["x", "y"], None, ["0", "1", "2"]]


def test_a_folder_of_parquet_is_one_table_read_in_batches(monkeypatch):
    from nvisa.data.files import parquet_folder

    monkeypatch.setattr(parquet_folder, "SMALL", 10)
    monkeypatch.setattr(parquet_folder, "BATCH", 7)
    X = np.random.default_rng(0).normal(size=(50, 3))
    Path("parts/2024").mkdir(parents=True)
    for i, name in enumerate(("parts/a.parquet", "parts/2024/b.parquet")):
        frame = pd.DataFrame(X[25 * (1 - i) : 25 * (2 - i)], columns=list("xyz"))  # 2024/b comes first
        frame.assign(n=np.arange(25), who="ann").to_parquet(name)
    with pytest.raises(DataError, match=r"parts: expected numeric columns, got 1 of 5 that are not: 'who'"):
        read_table("parts")
    table = read_table("parts", drop=["n"], drop_text=True)
    np.testing.assert_array_equal(table.X, X)
    assert isinstance(table.X, np.memmap)
    assert (table.columns, set(table.left_out)) == (["x", "y", "z"], {"n", "who"})
    assert notes(table) == "2 Parquet files, one after the other"
    pd.DataFrame({"x": [1.0]}).to_parquet("parts/c.parquet")
    with pytest.raises(DataError, match=r"got others in c\.parquet|got others in a\.parquet"):
        read_table("parts", drop_text=True)
