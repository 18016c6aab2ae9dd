"""What the command line says of data that nobody described, how many clusters it suggests, and how it fails."""

import itertools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import nvisa
from nvisa.commands import cli
from nvisa.commands.rows import Reading, read_rows
from nvisa.commands.understanding import understand
from nvisa.data import DataError, read_table
from nvisa.fitting import graph
from nvisa.methods.base import collapse_message

pytest.importorskip("pandas")
FAST = ["--epochs", "1", "--init", "random"]


@pytest.fixture(autouse=True)
def _clean_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NVISA_DATA_HOME", str(tmp_path / "no-data"))
    monkeypatch.chdir(tmp_path)


def write(text, name="x.csv", encoding="utf-8"):
    Path(name).write_bytes(text.encode(encoding))
    return name


def blobs(n_clusters, seed=0, n=60):
    """Well apart: centers on a cube's scaled corners, 12 deviations from each other at least."""
    rng = np.random.RandomState(seed)
    corners = np.array(list(itertools.product([0, 12], repeat=4)))[rng.permutation(16)[:n_clusters]]
    return (np.repeat(corners, n, axis=0) + rng.randn(n * n_clusters, 4)).astype(np.float32)


# ---- a newcomer's file ----------------------------------------------------------------------------------------


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
    with pytest.raises(DataError, match=r"'who' \(row 0: 'ann'\), 'when' .*id_column= if one names the rows"):
        read_table("x.csv")


def test_gaps_are_counted_by_column_and_left_out_when_asked(capsys):
    write("id,a,b\nr,1,2\ns,,4\nt,5,\nu,7,\nv,9,10\n")
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", "m"]) == 2
    message = capsys.readouterr().err
    assert "got nan in row 1, column 'a'" in message
    assert "3 of 5 rows with gaps, most in columns 'b' (2), 'a' (1)" in message
    assert "Try --drop-missing to leave these rows out, --drop COLUMN" in message
    rows = read_rows("x.csv", Reading(drop_missing=True))
    assert (rows.X.tolist(), rows.names, rows.n_incomplete) == ([[1, 2], [9, 10]], ["r", "v"], 3)
    rows = read_rows("x.csv", Reading(drop=("b",), drop_missing=True))
    assert (rows.X.ravel().tolist(), rows.names) == ([1, 5, 7, 9], ["r", "t", "u", "v"])


# ---- what was understood --------------------------------------------------------------------------------------


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
    assert understand(read_rows("x.csv", Reading()))["scaling"] == scaling
    assert understand(read_rows("x.csv", Reading()), scaling="global")["scaling"] == "global"


def test_bits_are_bernoulli_and_nothing_else_is():
    bits = np.random.RandomState(0).randint(0, 2, size=(30, 5)).astype(np.float32)
    for X, likelihood in [(bits, "bernoulli"), (bits * 0.5, "gaussian_shared"), (bits * 0, "gaussian_shared")]:
        np.save("x.npy", X)
        assert understand(read_rows("x.npy", Reading()))["likelihood"] == likelihood


def test_fit_says_what_it_understood_and_does_it(capsys):
    rows = "".join(f"r{i},{i % 7},{100 * (i % 5)},ann\n" for i in range(40))
    write("user_id,age,income,name\n" + rows)
    argv = ["fit", "x.csv", "--n-clusters", "2", "--out", "m", "--drop-text", *FAST]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert cli.main(argv) == 0
        said = capsys.readouterr().err
        assert cli.main([*argv, "--json"]) == 0
    for line in (
        "x.csv: table, 40 rows x 2 columns",
        "columns    'age', 'income'",
        "values     0 .. 400, modeled as numbers",
        "scaling    each column by its own deviation",
        "left out   columns 'name'",
        "row names  kept",
    ):
        assert line in said
    document = json.loads(capsys.readouterr().out)["data"]
    assert (document["kind"], document["columns"], document["left_out"]) == ("table", ["age", "income"], ["name"])
    model = nvisa.load("m")
    assert (model.network.scaling, model.likelihood) == ("columns", "gaussian_shared")


def test_a_fit_without_k_says_how_to_choose_it(capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(["fit", "x.csv", "--out", "m"])
    assert raised.value.code == 2
    assert "expected --n-clusters K, the number of clusters. Try nvisa choose-k x.csv" in capsys.readouterr().err


def test_an_error_is_one_json_document_too(capsys):
    assert cli.main(["choose-k", "nowhere.csv", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["exit_code"] == 2
    assert "nowhere.csv: expected" in json.loads(printed.out)["error"]
    assert printed.err.startswith("error: nowhere.csv: expected")


# ---- choose-k -------------------------------------------------------------------------------------------------


def block_joint(sizes, n_micro):
    """Micro-clusters of equal size, n_micro of them in each group; neighbors spread evenly inside a group."""
    groups = [np.full((n_micro, n_micro), size / n_micro**2) for size in sizes]
    joint = np.zeros((n_micro * len(sizes),) * 2)
    for i, group in enumerate(groups):
        part = slice(i * n_micro, (i + 1) * n_micro)
        joint[part, part] = group
    return joint / joint.sum()


@pytest.mark.parametrize("n_groups", [2, 3, 5])
def test_the_curve_of_groups_that_share_no_neighbors(n_groups):
    """I(K) is log of the number of groups from there on, and the entropy of the merged groups before."""
    curve = graph.information_curve(block_joint(np.ones(n_groups), 4))
    assert len(curve) == 4 * n_groups
    np.testing.assert_allclose(curve[0], 0, atol=1e-12)
    np.testing.assert_allclose(curve[n_groups - 1 :], np.log(n_groups), atol=1e-9)
    assert graph.separation(curve).argmax() + 2 == n_groups


def test_the_curve_is_that_of_merging_to_each_k():
    rng = np.random.RandomState(0)
    joint = rng.gamma(0.3, size=(9, 9)) + 3 * np.eye(9)
    joint = (joint + joint.T) / (joint + joint.T).sum()
    for k, information in enumerate(graph.information_curve(joint), start=1):
        one_hot = np.eye(k)[graph.merge_by_information(joint, k)]
        np.testing.assert_allclose(graph.mutual_information(one_hot.T @ joint @ one_hot), information, atol=1e-12)


def test_separation_is_one_where_each_cluster_brings_its_share():
    np.testing.assert_allclose(graph.separation(0.3 * np.log(np.arange(1, 12))), 1.0)


@pytest.mark.parametrize("n_clusters", [2, 4, 9])
def test_blobs_are_counted(n_clusters, capsys):
    np.save("x.npy", blobs(n_clusters))
    assert cli.main(["choose-k", "x.npy", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["candidates"][0], result["is_clear"]) == (n_clusters, True)
    assert result["next"][0].endswith(f"fit x.npy --n-clusters {n_clusters} --out model")


def test_rows_without_clusters_have_no_clear_number(capsys):
    np.save("x.npy", np.random.RandomState(1).randn(600, 4).astype(np.float32))
    assert cli.main(["choose-k", "x.npy"]) == 0
    assert "No K stands out" in capsys.readouterr().out
    np.save("x.npy", np.zeros((20, 3), dtype=np.float32))
    assert cli.main(["choose-k", "x.npy"]) == 2
    assert "expected at least 25 rows" in capsys.readouterr().err


# ---- a fit that lost its clusters -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "n_used"),
    [
        ([50, 50], None),
        ([97, 3], None),  # rare, not lost
        ([100, 0], 1),
        ([50, 50, 0, 0], None),
        ([100, 0, 0, 0], 1),
        ([300, 300, 9, 0, 0, 0], 2),  # 9 of 609 rows: less than a tenth of an equal share
    ],
)
def test_lost_clusters(sizes, n_used):
    message = collapse_message(np.array(sizes))
    assert (message is None) is (n_used is None)
    if message:
        assert message.startswith(f"Only {n_used} of {len(sizes)} clusters are in use")


def test_a_collapsed_fit_warns():
    """Rows that are all alike leave one cluster, whatever the weights."""
    X = np.zeros((40, 3))
    X[:, 0] = 1e-9 * np.arange(40)
    network = nvisa.Network(hidden=(8,), batch_norm=False, scaling="none")
    quick = {"init": "random", "consistency": None, "network": network, "training": nvisa.Training(epochs=1)}
    clusterer = nvisa.NVISA(4, **quick, random_state=0)
    with (
        pytest.warns(UserWarning, match="columns are constant"),
        pytest.warns(ConvergenceWarning, match="Only 1 of 4 clusters are in use"),
    ):
        clusterer.fit(X)
    assert set(clusterer.labels_) == {0}


# ---- completion -----------------------------------------------------------------------------------------------


def completed(script, words):
    """What bash offers for the last of the words."""
    lines = [
        script,
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}",
        "_shtab_nvisa nvisa; printf '%s\\n' \"${COMPREPLY[@]}\"",
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_and_choices(capsys):
    pytest.importorskip("shtab")
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert {"fit", "predict", "choose-k"} <= set(completed(script, ["nvisa", "''"]))
    assert completed(script, ["nvisa", "fit", "--n-cl"]) == ["--n-clusters"]
    assert set(completed(script, ["nvisa", "fit", "--init", "''"])) == {"umap", "gmm", "random"}


def test_without_shtab_the_way_to_get_it_is_told(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "zsh"]) == 2
    assert 'Try pip install "nvisa[completion]"' in capsys.readouterr().err
    assert os.listdir() == []
