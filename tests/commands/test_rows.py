"""The rows that DATA stands for."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy import sparse

import nvisa
from nvisa.commands import cli
from nvisa.commands.options import OF_COLUMNS, OF_IMAGES, OF_TEXT, ReadOptions, option
from nvisa.commands.rows import read_rows


def test_a_name_wins_over_a_path_and_says_so(home):
    (home / "digits").mkdir()
    with pytest.warns(UserWarning, match=r"write ./digits for the path"):
        assert read_rows("digits", ReadOptions()).source == "digits, train split"
    with pytest.raises(ValueError, match="expected images"):
        read_rows("./digits", ReadOptions())


@pytest.mark.filterwarnings("ignore:Only . of 2 clusters")
def test_gaps_are_counted_and_left_out_when_asked(capsys):
    Path("x.csv").write_text("id,a,b\nr,1,2\ns,,4\nt,5,\nu,7,\nv,9,10\n")
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", "m", "--init", "random", "--epochs", "1"]) == 0
    assert "gaps       3 rows have gaps (3 in all), modeled as not observed; --drop-missing" in capsys.readouterr().err
    rows = read_rows("x.csv", ReadOptions())
    assert (len(rows.X), rows.n_with_gaps, rows.n_gaps, rows.n_incomplete) == (5, 3, 3, 0)
    rows = read_rows("x.csv", ReadOptions(drop_missing=True))
    assert (rows.X.tolist(), rows.names, rows.n_incomplete) == ([[1, 2], [9, 10]], ["r", "v"], 3)
    rows = read_rows("x.csv", ReadOptions(drop=("b",), drop_missing=True))
    assert (rows.X.ravel().tolist(), rows.names) == ([1, 5, 7, 9], ["r", "t", "u", "v"])


FAST = ["--epochs", "1", "--init", "random", "--quiet"]
GERMAN = "id;umsatz;kunden;art\n" + "".join(f"k{i};{1 + i % 3}.{100 + i};{i % 7};{'ab'[i % 2]}\n" for i in range(30))


def predicted(*words):
    assert cli.main(["predict", "m", *words, "--out", "l.csv"]) == 0
    return pandas.read_csv("l.csv")


@pytest.mark.filterwarnings("ignore:Only . of 2 clusters")
def test_a_model_reads_other_files_as_it_read_its_own(capsys):
    """What was typed for the fit need not be typed again, and decides what another file leaves open."""
    Path("x.csv").write_text(GERMAN)
    fit = ["fit", "x.csv", "--n-clusters", "2", "--out", "m", *FAST, "--label-column", "art", "--drop", "kunden"]
    assert cli.main(fit) == 2
    assert "Try --thousands . or --decimal . to say it" in capsys.readouterr().err
    assert cli.main([*fit, "--thousands", "."]) == 0
    model = nvisa.load("m")
    assert list(model.feature_names_in_) == ["umsatz"]
    labels = predicted("x.csv")
    assert (list(labels.row), list(labels.cluster)) == ([f"k{i}" for i in range(30)], list(model.labels_))
    assert cli.main(["evaluate", "m", "x.csv"]) == 0
    assert cli.main(["report", "m", "--data", "x.csv", "--maps", "pca"]) == 0
    Path("new.csv").write_text("id;umsatz\nz;1.100\n")  # no label, no column to drop
    assert predicted("new.csv").cluster[0] == labels.cluster[0]
    capsys.readouterr()
    assert cli.main(["predict", "m", "new.csv", "--out", "l.csv", "--thousands", "none", "--decimal", "."]) == 0
    np.save("x.npy", np.array([[1100.0]]))  # another kind of file has no such columns
    assert predicted("x.npy").cluster[0] == labels.cluster[0]


def test_every_guess_has_an_option_on_every_command_that_reads(capsys):
    for command in ("fit", "predict", "report", "evaluate", "choose-k"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        said = capsys.readouterr().out
        for name in OF_TEXT + OF_COLUMNS + OF_IMAGES:
            assert option(name).split(" ")[0] in said, (command, name)


def test_marks_are_typed_by_name():
    args = ["predict", "m", "x", "--out", "l.csv", "--separator", "tab", "--thousands", "none", "--header", "no"]
    options = ReadOptions.of(cli.build_parser().parse_args(args))
    assert (options.separator, options.thousands, options.header) == ("\t", "", False)
    again = ReadOptions.of(cli.build_parser().parse_args([*args[:5], *options.words()]))
    assert again == options
    assert ReadOptions.remembered(json.loads(json.dumps(options.said()))) == options


def test_a_sparse_archive_is_fitted_sparse(capsys):
    rng = np.random.default_rng(0)
    rows = sparse.random_array((40, 60), density=0.1, format="csr", rng=rng)
    for format_ in ("csr", "csc", "coo", "dia"):
        sparse.save_npz("x.npz", rows.asformat(format_))
        read = read_rows("x.npz", ReadOptions())
        np.testing.assert_array_equal(read.X[:], rows.toarray())
        assert read.notes == ("sparse rows, 10 % of their entries not zero",)
    assert cli.main(["fit", "x.npz", "--n-clusters", "2", "--out", "m", *FAST[:-1], "--consistency", "none"]) == 0
    assert "x.npz: sparse rows, 40 rows x 60 columns" in capsys.readouterr().err
    assert len(predicted("x.npz")) == 40
    sparse.save_npz("blocks.npz", rows.tobsr((2, 2)))
    assert cli.main(["fit", "blocks.npz", "--n-clusters", "2", "--out", "m2"]) == 2
    assert "sparse array of blocks of 2 x 2" in capsys.readouterr().err
    sparse.save_npz("bad.npz", rows * np.inf)
    assert cli.main(["fit", "bad.npz", "--n-clusters", "2", "--out", "m"]) == 2
    assert "expected finite numbers" in capsys.readouterr().err


def test_seconds_since_1970_are_told_apart(capsys):
    """Bursts 50 s apart, at 1.7e9, where float32 steps by 128."""
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1, 2], 40)
    t = 1.7e9 + np.array([0.0, 50, 1000])[kind] + rng.normal(size=120)
    for name, offset in (("near", 1.7e9), ("far", 0.0)):
        pandas.DataFrame({"a": t - offset, "b": t - offset}).to_csv(f"{name}.csv", index=False)
    curves = []
    for name in ("near", "far"):
        assert cli.main(["choose-k", f"{name}.csv", "--max-k", "4", "--json"]) == 0
        curves.append(json.loads(capsys.readouterr().out)["separation"])
    np.testing.assert_allclose(*curves, atol=0.05)
