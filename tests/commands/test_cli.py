"""The command line on files in a clean folder: what it writes, prints and answers to the shell."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

import nvisa
from nvisa import commands
from nvisa.commands import cli, results
from nvisa.commands.rows import Reading, read_rows
from nvisa.fitting import checkpoint

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
Image = pytest.importorskip("PIL.Image")

COMMANDS = (
    "demo",
    "fit",
    "choose-k",
    "predict",
    "evaluate",
    "sample",
    "data",
    "features",
    "report",
    "bench",
    "table",
    "completion",
)
FAST = ["--epochs", "1", "--init", "random"]
N = 45


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A clean folder to work in, and no data sets but digits."""
    monkeypatch.setenv("NVISA_DATA_HOME", str(tmp_path / "no-data"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def frame():
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.randn(N // 3, 4) + 5 * k for k in range(3)])
    return pandas.DataFrame(X, columns=["age", "height", "weight", "pulse"]).assign(kind=np.repeat(["a", "b", "c"], 15))


@pytest.fixture(scope="module")
def trained(frame, tmp_path_factory):
    """A model of the four columns."""
    folder = tmp_path_factory.mktemp("trained")
    frame.to_csv(folder / "x.csv", index=False)
    argv = ["fit", str(folder / "x.csv"), "--n-clusters", "3", "--out", str(folder / "m"), *FAST]
    assert cli.main([*argv, "--label-column", "kind", "--quiet"]) == 0
    return folder / "m"


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """A model of gray images of 6 x 5 in three clusters."""
    folder = tmp_path_factory.mktemp("pictured")
    np.save(folder / "x.npy", np.random.RandomState(0).rand(N, 6, 5))
    argv = ["fit", str(folder / "x.npy"), "--n-clusters", "3", "--out", str(folder / "m"), *FAST, "--quiet"]
    assert cli.main(argv) == 0
    return folder / "m"


def write_csv(frame):
    frame.to_csv("x.csv", index=False)
    return ["x.csv", "--label-column", "kind"]


def write_parquet(frame):
    frame.to_parquet("x.parquet")
    return ["x.parquet", "--drop-text"]


def write_npy(frame):
    np.save("x.npy", frame.drop(columns="kind").to_numpy())
    return ["x.npy"]


def write_npz(frame):
    np.savez("x.npz", X=frame.drop(columns="kind").to_numpy(), y=frame.kind.to_numpy().astype("U1"))
    return ["x.npz"]


def write_images(frame):
    rng = np.random.RandomState(0)
    for i, kind in enumerate(frame.kind):
        os.makedirs(f"photos/{kind}", exist_ok=True)
        Image.fromarray(rng.randint(0, 256, (6, 5), dtype=np.uint8)).save(f"photos/{kind}/{i}.png")
    return ["photos", "--labels-from-folders"]


KINDS = [write_csv, write_parquet, write_npy, write_npz, write_images]


# ---- the flow of the README -----------------------------------------------------------------------------------


@pytest.mark.parametrize("write", KINDS, ids=lambda f: f.__name__.removeprefix("write_"))
def test_fit_then_the_commands_that_it_prints(frame, write, capsys):
    read = write(frame)
    assert cli.main(["fit", *read, "--n-clusters", "3", "--out", "model", *FAST]) == 0
    printed = capsys.readouterr()
    assert "training 1/1" in printed.err
    has_labels = write not in (write_parquet, write_npy)
    assert ("agreement with the labels, which training did not see:" in printed.out) == has_labels
    lines = printed.out.partition("next:\n")[2].splitlines()
    assert len(lines) == 3 + has_labels
    for line in lines:
        words = shlex.split(line)
        assert cli.main(words[words.index("nvisa") + 1 :] if "nvisa" in words else words[1:]) == 0
    labels = pandas.read_csv("labels.csv")
    assert list(labels.columns) == ["row", "cluster"]
    np.testing.assert_array_equal(labels.cluster, nvisa.load("model").labels_)
    if write is write_images:
        assert labels.row[0] == "a/0.png"
        with Image.open("samples.png") as image:
            assert min(image.size) > 50
    else:
        assert len(pandas.read_csv("samples.csv")) == 100


@pytest.mark.filterwarnings("default:.*columns are constant")
def test_a_data_set_by_name(home, capsys):
    argv = ["fit", "digits", "--n-clusters", "10", "--out", "m", *FAST, "--n-samples", "2", "--consistency", "none"]
    assert cli.main([*argv, "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "warning: 3 of 64 columns are constant and tell nothing apart (columns 0, 32, 39).\n"
    manifest = json.loads((home / "m" / "manifest.json").read_text())
    assert manifest["extra"]["source"] == "digits, train split"
    assert manifest["extra"]["feature_shape"] == [8, 8]
    assert len(manifest["extra"]["data_digest"]) == 64
    assert manifest["params"]["consistency"] is None
    assert cli.main(["predict", "m", "digits", "--out", "l.parquet", "--proba"]) == 0
    table = pandas.read_parquet("l.parquet")
    assert table.shape == (1797, 12)
    np.testing.assert_allclose(table.filter(regex="^p").sum(axis=1), 1, rtol=1e-5)
    assert cli.main(["sample", "m", "-n", "25", "--cluster", "3", "--mean", "--out", "three.png"]) == 0
    assert cli.main(["evaluate", "m", "digits", "--split", "test"]) == 2
    assert "without one. Try --split train" in capsys.readouterr().err


def plain(params, name):
    """The setting of this name, or of this name in the network."""
    return params[name] if name in params else getattr(params["network"], name)


@pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")
@pytest.mark.parametrize(
    ("option", "value", "name", "expected"),
    [
        ("--scaling", "columns", "scaling", "columns"),
        ("--scaling", "none", "scaling", "none"),
        ("--likelihood", "gaussian", "likelihood", "gaussian"),
        ("--inference", "enum_y", "inference", "enum_y"),
        ("--init", "random", "init", "random"),
        ("--n-samples", "2", "n_samples", 2),
        ("--n-init", "2", "n_init", 2),
        ("--seed", "7", "random_state", 7),
        ("--consistency", "none", "consistency", None),
    ],
)
def test_an_option_of_fit_is_the_setting_of_the_model(frame, option, value, name, expected):
    argv = ["fit", *write_npy(frame), "--n-clusters", "3", "--out", "m", "--quiet"]
    assert cli.main([*argv, *FAST, option, value]) == 0
    assert plain(nvisa.load("m").get_params(), name) == expected


def test_the_column_that_names_the_rows_is_no_feature(frame, home):
    names = [f"n{i:02}" for i in range(N)]
    frame.drop(columns="kind").assign(who=names).to_csv("x.csv", index=False)
    read = ["x.csv", "--id-column", "who"]
    assert cli.main(["fit", *read, "--n-clusters", "3", "--out", "m", "--quiet", *FAST]) == 0
    assert list(nvisa.load("m").feature_names_in_) == ["age", "height", "weight", "pulse"]
    assert cli.main(["predict", "m", *read, "--out", "l.csv"]) == 0
    assert list(pandas.read_csv("l.csv").row) == names


def test_a_data_set_is_fitted_on_its_train_split_and_judged_on_its_test_split(home, capsys):
    folder = home.parent / "no-data" / "features"
    folder.mkdir(parents=True)
    rng = np.random.RandomState(0)
    y = {split: np.arange(n) % 2 for split, n in (("train", 40), ("test", 12))}
    X = {f"x_{split}": rng.randn(len(labels), 3) + 6 * labels[:, None] for split, labels in y.items()}
    np.savez(folder / "toy.npz", **X, y_train=y["train"], y_test=y["test"])
    assert cli.main(["fit", "toy", "--n-clusters", "2", "--out", "m", *FAST, "--quiet"]) == 0
    assert len(nvisa.load("m").labels_) == 40
    for command, n_rows in (
        (["choose-k", "toy", "--max-k", "3"], 40),
        (["predict", "m", "toy", "--out", "l.csv"], 12),
        (["evaluate", "m", "toy"], 12),
        (["evaluate", "m", "toy", "--split", "train"], 40),
    ):
        capsys.readouterr()
        assert cli.main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["n_rows"] == n_rows


# ---- sample ---------------------------------------------------------------------------------------------------


def test_a_column_that_may_name_the_rows_is_asked_about(frame, capsys):
    X = frame.drop(columns="kind").assign(customer_id=range(1, N + 1), day_no=np.arange(N) % 7)
    X.to_csv("x.csv", index=False)
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", "m", *FAST]) == 0
    assert "used       'customer_id': if they name the rows, --id-column or --drop NAME" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
def test_samples_have_the_clusters_asked_for(trained, suffix):
    out = f"s{suffix}"
    assert cli.main(["sample", str(trained), "-n", "7", "--cluster", "1", "--seed", "3", "--out", out]) == 0
    X, y = nvisa.load(trained).sample(7, cluster=1, random_state=3)
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(out), X)
    elif suffix == ".npz":
        np.testing.assert_array_equal(np.load(out)["X"], X)
        np.testing.assert_array_equal(np.load(out)["y"], y)
    else:
        table = pandas.read_csv(out) if suffix == ".csv" else pandas.read_parquet(out)
        assert list(table.columns) == ["age", "height", "weight", "pulse", "cluster"]
        np.testing.assert_allclose(table.iloc[:, :4], X, rtol=1e-5)
    assert cli.main(["predict", str(trained), out, "--out", "l.csv"]) == (2 if suffix in (".csv", ".parquet") else 0)


def test_a_cluster_of_a_few_rows_is_not_in_use(trained, capsys, monkeypatch):
    """As in the warning of a fit."""
    sizes = [300, 300, 9, 1, 1, 1]
    np.save("x.npy", np.zeros((sum(sizes), 4)))
    monkeypatch.setattr(nvisa.NVISA, "predict_proba", lambda self, X: np.eye(6)[np.repeat(range(6), sizes)])
    assert cli.main(["predict", str(trained), "x.npy", "--out", "l.csv"]) == 0
    assert "2 of 6 clusters in use, of sizes 300, 300, 9, 1, 1, 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("n", [2, 7])
@pytest.mark.parametrize("cluster", [[], ["--cluster", "1"]])
def test_a_picture_has_as_many_samples_as_asked_for(pictured, monkeypatch, capsys, n, cluster):
    drawn = []
    drawing = "nvisa.report.pictures.save_grid"
    monkeypatch.setattr(drawing, lambda path, blocks, **_: drawn.extend(blocks) or path.touch())
    assert cli.main(["sample", str(pictured), "-n", str(n), *cluster, "--out", "s.png"]) == 0
    assert capsys.readouterr().out == f"wrote {n} samples to s.png\n"
    ((_, lines),) = drawn
    assert [len(line) for line in lines] == ([n] if cluster else {2: [1, 1], 7: [3, 2, 2]}[n])


@pytest.mark.filterwarnings("default:'cluster' is a feature of the model")
def test_a_feature_called_cluster_is_not_overwritten_by_the_clusters(frame, capsys):
    frame.drop(columns="kind").rename(columns={"age": "cluster"}).to_csv("x.csv", index=False)
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", "m", *FAST, "--quiet"]) == 0
    assert cli.main(["sample", "m", "-n", "6", "--seed", "3", "--out", "s.csv"]) == 0
    assert "warning: 'cluster' is a feature of the model: the clusters are in" in capsys.readouterr().err
    X, y = nvisa.load("m").sample(6, random_state=3)
    table = pandas.read_csv("s.csv")
    assert list(table.columns) == ["cluster", "height", "weight", "pulse", "cluster_"]
    np.testing.assert_allclose(table.cluster, X[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(table.cluster_, y)


# ---- JSON -----------------------------------------------------------------------------------------------------


def test_json_is_one_document(frame, capsys):
    write_csv(frame)
    read = ["x.csv", "--label-column", "kind", "--json"]
    assert cli.main(["fit", *read, "--n-clusters", "3", "--out", "m", *FAST]) == 0
    fit = json.loads(capsys.readouterr().out)
    assert sum(fit["sizes"]) == fit["n_rows"] == N
    assert 1 <= fit["clusters_in_use"] <= len(fit["sizes"])
    assert set(fit["metrics"]) == {"accuracy", "purity", "nmi", "ari"}
    assert cli.main(["evaluate", "m", *read]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == fit["metrics"]
    assert cli.main(["predict", "m", *read, "--out", "l.csv", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["n_rows"] == N
    assert cli.main(["data", "list", "--json"]) == 0
    assert {"digits", "mnist", "fashion_mnist"} <= {entry["name"] for entry in json.loads(capsys.readouterr().out)}


# ---- errors ---------------------------------------------------------------------------------------------------


def test_columns_are_matched_by_name(frame, trained, home, capsys):
    X = frame.drop(columns="kind")
    X[["pulse", "weight", "height", "age"]].to_csv("turned.csv", index=False)
    X.to_csv("right.csv", index=False)
    for name in ("turned", "right"):
        assert cli.main(["predict", str(trained), f"{name}.csv", "--out", f"{name}.labels.csv"]) == 0
    assert (home / "turned.labels.csv").read_text() == (home / "right.labels.csv").read_text()
    X.rename(columns={"age": "Age"}).to_csv("other.csv", index=False)
    assert cli.main(["predict", str(trained), "other.csv", "--out", "l.csv"]) == 2
    assert "no 'age' and also 'Age'" in capsys.readouterr().err
    np.save("narrow.npy", X.to_numpy()[:, :3])
    assert cli.main(["predict", str(trained), "narrow.npy", "--out", "l.csv"]) == 2
    assert "expected 4 columns, as the model was fitted on, got 3" in capsys.readouterr().err
    assert not os.path.exists("l.csv")


def test_images_of_another_shape_are_refused_though_they_have_as_many_pixels(home, capsys):
    images = np.random.RandomState(0).rand(30, 4, 9)
    for name, shape in {"x": (4, 9), "gray": (4, 9, 1), "wide": (2, 18)}.items():
        np.save(f"{name}.npy", images.reshape(30, *shape))
    assert cli.main(["fit", "x.npy", "--n-clusters", "2", "--out", "m", *FAST, "--quiet"]) == 0
    assert cli.main(["predict", "m", "gray.npy", "--out", "l.csv"]) == 0
    assert cli.main(["predict", "m", "wide.npy", "--out", "l2.csv"]) == 2
    message = "expected images of 4 x 9, as the model was fitted on, got 2 x 18. Try resizing them to 4x9."
    assert message in capsys.readouterr().err


def draw(folder, shape):
    os.makedirs(folder)
    for i in range(3):
        Image.fromarray(np.full(shape, 40 * i, dtype=np.uint8)).save(f"{folder}/{i}.png")


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((8, 4), "got 8 x 4. Try --image-size 6x5."),
        ((6, 5, 3), "got 6 x 5 x 3. Try converting them to gray (Pillow: Image.convert)."),
        ((8, 4, 3), "Try --image-size 6x5 and converting them to gray (Pillow: Image.convert)."),
    ],
)
def test_images_of_another_shape_are_told_what_makes_them_fit(pictured, capsys, shape, advice):
    draw("photos", shape)
    argv = ["predict", str(pictured), "photos", "--out", "l.csv"]
    assert cli.main(argv) == 2
    assert advice in capsys.readouterr().err
    assert cli.main([*argv, "--image-size", "6x5"]) == (2 if len(shape) == 3 else 0)


def test_wrong_input_is_said_before_training(frame, home, capsys, monkeypatch):
    def train(*_):
        raise AssertionError("trained")

    monkeypatch.setattr(nvisa.NVISA, "_fit", train)
    write_csv(frame)
    np.save("short.npy", np.zeros((2, 3)))
    holes = frame.drop(columns="kind").to_numpy().copy()
    holes[17, 2] = np.nan
    np.save("holes.npy", holes)
    pandas.DataFrame(holes, columns=list("abcd")).to_csv("holes.csv", index=False)
    pandas.DataFrame(holes, columns=list("abcd")).assign(b=np.nan).to_csv("hollow.csv", index=False)
    frame.assign(kind=frame.kind.where(frame.index != 7)).to_csv("some.csv", index=False)
    (home / "cut.npy").write_bytes((home / "holes.npy").read_bytes()[:-9])
    (home / "mine").mkdir()
    (home / "mine" / "thesis.txt").write_text("years of work")
    for data, more, message in [
        ("x.csv", [], "Try --drop-text to leave them out, --label-column if one holds the labels"),
        ("x.csv", ["--label-column", "Kind"], "expected a label column 'Kind'"),
        ("nowhere.csv", [], "got nothing there"),
        ("mnits", [], "mnits: expected a file, a folder or a data set's name, got none of them. Try 'mnist'"),
        ("short.npy", [], "error: 2 rows should be >= --n-clusters=3"),
        ("x.csv", ["--drop-text", "--epochs", "0"], "error: --epochs must be a whole number of at least 1"),
        ("x.csv", ["--drop-text", "--n-init", "0"], "error: --n-init must be a whole number of at least 1"),
        ("x.csv", ["--drop-text", "--likelihood", "bernoulli"], "error: --likelihood bernoulli needs data in [0, 1]"),
        ("holes.npy", [], "expected finite numbers, got nan in row 17, column 2"),
        ("holes.csv", [], "got nan in row 17, column 'c'"),
        ("hollow.csv", ["--drop-missing"], "most in columns 'b' (45), 'c' (1). Try --drop COLUMN, or filling in"),
        ("some.csv", ["--label-column", "kind"], "some.csv: expected a label for every row, got 1 without one"),
        ("cut.npy", [], "got an unreadable file"),
        ("x.csv", ["--drop-text", "--n-samples", "1"], "error: --n-samples must be a whole number of at least 2"),
        ("x.csv", ["--drop-text", "--out", "mine"], "got a folder with other files"),
        ("x.csv", ["--drop-text", "--out", "x.csv"], "got a file"),
    ]:
        assert cli.main(["fit", data, "--n-clusters", "3", "--out", "m", *FAST, *more]) == 2, data
        captured = capsys.readouterr()
        assert message in captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""
    assert not os.path.exists("m")
    assert (home / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["predict", "nowhere", "x.csv", "--out", "l.csv"], "expected a model directory, got nothing there"),
        (["predict", "x.csv", "x.csv", "--out", "l.csv"], "x.csv: expected a model directory, got a file"),
        (["choose-k", "x.csv", "--drop-text", "--max-k", "1"], "Try a larger --max-k"),
        (["predict", "M", "x.csv", "--out", "l.xlsx"], "expected a name ending in .csv, .parquet, got '.xlsx'"),
        (["predict", "M", "x.csv", "--out", "x.csv"], "got the data themselves"),
        (["predict", "M", "x.csv", "--out", "no/l.csv"], "expected a folder that can be written to, got no"),
        (["predict", "M", "x.csv", "--out", "l.csv", "--split", "test"], "expected a data set's name with --split"),
        (["predict", "M", "x.csv", "--out", "l.csv", "--split", "train"], "expected a data set's name with --split"),
        (["predict", "M", "x.csv", "--out", "l.csv", "--image-size", "28x28"], "a folder of images (--image-size)"),
        (["predict", "M", "digits", "--out", "l.csv", "--id-column", "x"], "expected a path with --id-column"),
        (["evaluate", "M", "x.csv"], "expected labels to compare the clusters with, got none. Try --label-column"),
        (["sample", "M", "--out", "s.png"], "expected a model of images for a picture"),
        (["sample", "M", "--cluster", "3", "--out", "s.npy"], "error: --cluster must be in 0..2, got 3"),
        (["sample", "M", "-n", "0", "--out", "s.npy"], "-n: expected at least 1 sample, got 0"),
    ],
)
def test_wrong_arguments(frame, trained, home, capsys, argv, message):
    frame.drop(columns="kind").to_csv("x.csv", index=False)
    before = (home / "x.csv").read_text()
    assert cli.main([str(trained) if word == "M" else word for word in argv]) == 2
    assert message in capsys.readouterr().err
    assert (home / "x.csv").read_text() == before
    assert os.listdir() == ["x.csv"]


@pytest.mark.parametrize(
    "argv", [["fit"], ["fit", "x.npy", "--n-clusters", "3"], ["sing"], ["fit", "x", "--n-clusters", "a", "--out", "m"]]
)
def test_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(argv)
    assert raised.value.code == 2
    assert "usage: nvisa" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (nvisa.DivergedError("log_p_x"), 3, "log_p_x is not finite"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device"), 2, "No space left"),
        (TypeError("oops"), 1, "a fault of nvisa's"),
    ],
    ids=lambda e: type(e).__name__ if isinstance(e, BaseException) else "",
)
def test_exit_codes(frame, capsys, monkeypatch, error, code, message):
    def fail(*_):
        raise error

    monkeypatch.setattr(nvisa.NVISA, "_fit", fail)
    argv = ["fit", *write_npy(frame), "--n-clusters", "3", "--out", "m"]
    assert cli.main(argv) == code
    quiet = capsys.readouterr().err
    assert message in quiet
    assert "Traceback" not in quiet
    assert cli.main([*argv, "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err
    assert not os.path.exists("m")


def test_an_interrupted_fit_says_how_to_go_on_and_the_same_command_does(frame, capsys, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    argv = ["fit", *write_npy(frame), "--n-clusters", "3", "--init", "random", "--epochs", "4", "--quiet"]
    assert cli.main([*argv, "--out", "whole"]) == 0
    resumable = [*argv, "--out", "m", "--checkpoint", "run"]

    def interrupt_after(n_epochs):
        def report(clusterer, record):
            if record["epoch"] > n_epochs:
                raise KeyboardInterrupt

        return report

    for n_epochs, said in [(0, "too early for a checkpoint in run: the same command starts again"),
                           (2, "the same command goes on from run (training, epoch 2)")]:  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(nvisa.NVISA, "_report", interrupt_after(n_epochs))
            assert cli.main(resumable) == 130
        assert f"interrupted: {said}" in capsys.readouterr().err
        assert not os.path.exists("m")
    assert cli.main(resumable) == 0
    whole, resumed = nvisa.load("whole"), nvisa.load("m")
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    for a, b in zip(whole.module_.parameters(), resumed.module_.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())
    assert not os.path.exists("run")


def test_an_interruption_while_torch_is_imported_is_one_too(capsys, monkeypatch):
    def cut_short():
        monkeypatch.setitem(sys.modules, "nvisa.commands.results", None)  # as broken as torch is then
        monkeypatch.setitem(sys.modules, "nvisa.fitting.training", None)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_commands", cut_short)
    assert cli.main(["choose-k", "x.csv"]) == 130
    assert capsys.readouterr().err.startswith("interrupted: nothing was written")


def test_a_model_and_a_checkpoint_are_not_written_into_one_folder(frame, capsys):
    frame.to_csv("x.csv", index=False)
    assert cli.main(["fit", "x.csv", "--n-clusters", "2", "--out", "m", "--checkpoint", "./m/"]) == 2
    assert "another for --checkpoint, got one for both" in capsys.readouterr().err
    assert not os.path.exists("m")


def test_an_interrupted_fit_without_a_checkpoint_names_the_option(frame, capsys, monkeypatch):
    monkeypatch.setattr(nvisa.NVISA, "_report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["fit", *write_npy(frame), "--n-clusters", "3", "--out", "m", *FAST]) == 130
    assert "fit --checkpoint DIR can be resumed" in capsys.readouterr().err


def test_a_name_wins_over_a_path_and_says_so(home):
    (home / "digits").mkdir()
    with pytest.warns(UserWarning, match=r"write ./digits for the path"):
        assert read_rows("digits", Reading()).source == "digits, train split"
    with pytest.raises(ValueError, match="expected images"):
        read_rows("./digits", Reading())


def test_a_result_is_whole_or_the_old_one_stays(monkeypatch, home):
    path = home / "l.csv"
    path.write_text("old")
    monkeypatch.setattr(pandas.DataFrame, "to_csv", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        results.write_table(path, {"row": np.arange(3)})
    assert path.read_text() == "old"
    assert os.listdir() == ["l.csv"]


@pytest.mark.parametrize(
    ("library", "shell"),
    [
        ("Try drop_text=True to leave", "Try --drop-text to leave"),
        ("Try image_size=(28, 27) to resize", "Try --image-size 28x27 to resize"),
        ("or labels_from_folders=False.", "or without --labels-from-folders."),
        ("label_column= if one", "--label-column if one"),
    ],
)
def test_advice_in_the_words_of_the_shell(library, shell):
    assert results.in_options(library) == shell


# ---- the program ----------------------------------------------------------------------------------------------


def test_alone_it_explains_itself(capsys):
    assert cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    for line in lines:
        if line.startswith("  nvisa "):
            assert line.split()[1] in COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_documents_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main([*command.split(), "--help"])
    assert raised.value.code == 0
    assert "exit codes: 0 done; 1 a fault" in " ".join(capsys.readouterr().out.split())


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"nvisa {nvisa.__version__}\n"


def test_as_a_module_it_answers_without_importing_torch():
    argv = [sys.executable, "-X", "importtime", "-m", "nvisa", "data", "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "list the data sets" in done.stdout
    assert "nvisa.commands.cli" in done.stderr
    assert "torch" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_has_seen_enough_is_no_error():
    """As ``nvisa | head -1``: the other end of the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "nvisa"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_public_names():
    assert set(nvisa.__all__) <= set(dir(nvisa))
    assert all(getattr(nvisa, name) is not None for name in nvisa.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nvisa'"):
        nvisa.Nvisa  # noqa: B018


def test_data_fetch_of_what_is_here(capsys):
    assert cli.main(["data", "fetch", "digits"]) == 0
    assert "nothing to fetch" in capsys.readouterr().out
    assert cli.main(["data", "fetch", "mnits"]) == 2
    assert commands.list_data(None)[0]["present"]
