"""Records, tables and documents: what a document says is what the records hold."""

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

import nvisa
from nvisa import data as datasets
from nvisa.benchmark import bench, figures, paper, run, tables
from nvisa.benchmark.experiments import EXPERIMENTS, Job
from nvisa.benchmark.grid import Grid, as_csv, latex, markdown
from nvisa.benchmark.recipes import ABLATION, RECIPES, Recipe
from nvisa.commands.cli import main
from nvisa.fitting.training import Training
from nvisa.maths.metrics import accuracy
from nvisa.methods import METHODS
from nvisa.nets.layers import Network

ROOT = Path(__file__).parents[2]


def record(**changes):
    metrics = {"accuracy": 0.5, "purity": 0.5, "nmi": 0.25, "ari": 0.1}
    base = {"method": "nvisa", "recipe": "default", "dataset": "mnist", "n_train": 60000, "n_test": 10000, "seed": 0}
    base |= {"status": "ok", "params": {}, "versions": {"nvisa": version("nvisa")}}
    return base | {"seconds": 10.0, "cpu_seconds": 8.0, "metrics": {"test": metrics, "train": metrics}} | changes


def reaching(accuracy, **changes):
    metrics = {"accuracy": accuracy, "purity": 0.9, "nmi": 0.5, "ari": 0.4}
    return record(metrics={"test": metrics, "train": metrics | {"accuracy": accuracy + 0.01}}, **changes)


@pytest.mark.parametrize("document", tables.DOCUMENTS)
def test_the_documents_hold_what_the_records_say(document):
    text = (ROOT / document).read_text()
    assert tables.PLACE.search(text)
    assert tables.rewrite(text, tables.load_records(ROOT / run.RECORDS)) == text, "run `make table`"


def test_every_record_was_made_by_a_commit_of_this_history():
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    if git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("not a whole clone")
    history = git("rev-list", "HEAD").splitlines()
    made = {record["commit"] for record in tables.load_records(ROOT / run.RECORDS)}
    assert {commit for commit in made if not any(full.startswith(commit) for full in history)} == set()


def test_a_cell_is_the_mean_and_the_sample_deviation():
    assert tables.cell([1.0, 2.0, 4.0]) == "2.33 ± 1.53"
    assert tables.cell([2.0]) == "2.00"
    assert tables.cell([]) == "-"


def test_a_diverged_run_is_shown_and_does_not_enter_the_mean():
    records = [record(), reaching(0.7, seed=1), record(seed=2, status="diverged", metrics={})]
    (row,) = tables.TABLES["default"](records).rows
    assert row[2] == "60.00 ± 14.14 (N/A)"
    assert row[5] == "0, 1, 2"
    (row,) = tables.TABLES["bound_alone_random"]([record(recipe="bound_alone/random")]).rows
    assert row[7] == paper.TABLE["NVISA(avg±std)"][0]
    assert tables.accuracy_cell(records[2:]) == "N/A"
    assert tables.accuracy_cell([record(status="crashed")]) == "crashed"


def test_every_run_is_counted_in_the_order_of_seeds_and_each_way_to_fail_is_named():
    failed = [record(seed=seed, recipe="dec/pixels", status=status, metrics={})
              for seed, status in ((3, "crashed"), (2, "diverged"))]  # fmt: skip
    records = [*failed, *(reaching(0.5 + seed / 5, recipe="dec/pixels", seed=seed) for seed in (1, 0))]
    assert tables.accuracy_cell(failed) == "crashed, N/A"
    assert tables.TABLES["dec"](records).rows[0][5] == "0, 1, 2, 3"
    (dec,) = [row for row in tables.TABLES["table1"](records).rows if row[0] == "DEC"]
    assert dec[1] == "60.00 ± 14.14 (N/A) (crashed) [4]"
    assert tables.TABLES["mnist"](records).rows[0][7] == "4"


def test_table_1_stands_beside_the_slides():
    records = [reaching(0.8, recipe="dec/pixels"), reaching(0.9, recipe="dec/pixels", seed=1)]
    grid = tables.TABLES["table1"](records)
    rows = {row[0]: dict(zip(grid.head, row, strict=True)) for row in grid.rows}
    assert rows["DEC"]["mnist"] == "85.00 ± 7.07 [2]"
    assert (rows["DEC"]["mnist, slides"], rows["DEC"]["fashion_mnist"]) == ("84.30*", "not run")
    assert rows["GM-GAN"]["mnist, slides"] == "99.24*"
    assert rows["k-means"]["mnist, slides"] == ""
    assert rows["NVISA, bound alone, random start"]["fashion_mnist, slides"] == "62.63±2.92, best 66.14"
    (row,) = tables.TABLES["mnist"](records).rows
    assert row[:4] == ("DEC", "85.00 ± 7.07", "90.00", "86.00 ± 7.07")
    assert row[4:] == ("90.00 ± 0.00", "50.00 ± 0.00", "40.00 ± 0.00", "2", "10 (10)", "8 (8)")


def test_what_the_slides_only_propose_is_in_no_table_with_their_cells():
    records = [reaching(0.9, recipe=recipe) for recipe in ("default", "vat/default", "augment", "kmeans/default")]
    assert [row[0] for row in tables.TABLES["mnist"](records).rows] == ["k-means"]
    beyond = ["k-means", "consistency alone", "NVISA with consistency", "NVISA with augmentation"]
    assert [row[0] for row in tables.TABLES["mnist_beyond"](records).rows] == beyond
    assert tables.TABLES["default"](records).head[-1] == "seconds (longest)"


def test_a_label_free_score_is_held_against_the_labels():
    def run_of(seed, accuracy, information, bound):
        history = [{"bound": bound}]
        return reaching(accuracy, recipe="default", seed=seed, neighbor_information=information, history=history)

    records = [run_of(0, 0.5, 1.0, 3.0), run_of(1, 0.7, 3.0, 2.0), run_of(2, 0.6, 2.0, 1.0)]
    records.append(record(seed=3, status="diverged", metrics={}))
    (row,) = tables.TABLES["selection"](records).rows
    assert row == ("mnist", "default", "3", "60.00 ± 10.00, best 70.00", "70.00", "1.00", "-0.50")


def test_the_ablation_has_every_row_of_the_slides():
    grid = tables.TABLES["ablation"]([reaching(0.4, recipe=f"ablation/{row}", dataset="digits") for row in ABLATION])
    published = {(inference, method): accuracy for inference, method, accuracy in paper.ABLATION if inference != "-"}
    assert published == {row[:2]: row[-1] for row in grid.rows[:-1]}
    assert grid.rows[-1][-1] == paper.WITH_AE_GMM_INIT
    assert set(tables.ABLATION_ROWS) == set(ABLATION)
    assert tables.ablation_cell("a row of our own") == "-"


def test_an_ablations_row_differs_in_what_its_name_says():
    common = RECIPES["ablation/vimco_annealed"].settings
    for row in ABLATION:
        settings = RECIPES[f"ablation/{row}"].settings
        differing = {key for key in settings if settings[key] != common.get(key)}
        named = {"inference", "likelihood", "std_floor", "n_samples", "posterior", "init"} & set(ABLATION[row])
        assert differing <= named | ({"training"} if "1000" in row else set()), row
        assert (settings["training"].steps, settings["network"]) == (common["training"].steps, common["network"])


def test_a_table_without_records_says_so():
    assert all(tables.rendered(name, []) == tables.NO_RECORD for name in tables.TABLES)


def test_of_each_seed_s_two_fits_the_one_of_larger_information_is_taken():
    def run_of(recipe, seed, accuracy, information):
        return reaching(accuracy, recipe=recipe, seed=seed, neighbor_information=information)

    records = [run_of("default", 0, 0.5, 1.0), run_of("default", 1, 0.7, 3.0), run_of("default", 2, 0.1, 9.0)]
    records += [run_of("from_consistency", seed, *found) for seed, found in ((1, (0.6, 2.0)), (0, (0.9, 2.0)))]
    records += [run_of("from_consistency", 2, 0.2, 1.0), run_of("default", 3, 0.9, 1.0)]  # a wrong choice; no pair
    (row,) = tables.TABLES["starts"](records).rows
    default, other, kept = "43.33 ± 30.55", "56.67 ± 35.12", "56.67 ± 41.63"
    assert row == ("mnist", default, "4.333", other, "1.667", kept, "2 of 3")


def test_a_grid_in_three_formats():
    table = Grid(("a_b", "c %"), (("x & y", "1 ± 2"), ("z, w", "-")))
    assert markdown(table) == "| a_b | c % |\n|---|---|\n| x & y | 1 ± 2 |\n| z, w | - |"
    assert "x \\& y & 1 $\\pm$ 2 \\\\" in latex(table)
    assert "a\\_b & c \\% \\\\" in latex(table)
    assert latex(table).startswith("\\begin{tabular}{lr}")
    assert list(csv.reader(as_csv(table).splitlines())) == [list(table.head), *map(list, table.rows)]


def test_rewriting_replaces_only_the_place():
    text = "before\n<!-- table default -->\nold\n<!-- end table -->\nafter\n"
    new = tables.rewrite(text, [record()])
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert "old" not in new
    assert "50.00" in new


def test_a_check_refuses_a_document_that_the_records_contradict_and_leaves_it(tmp_path, monkeypatch):
    page, old = tmp_path / "page.md", "<!-- table default -->\nold\n<!-- end table -->\n"
    page.write_text(old)
    monkeypatch.setattr(tables, "DOCUMENTS", (str(page),))
    monkeypatch.setattr(tables, "load_records", lambda: [record()])
    with pytest.raises(SystemExit, match="disagree: run `make table`"):
        tables.main(["--check"])
    assert page.read_text() == old
    tables.main([])
    assert "50.00" in page.read_text()
    tables.main(["--check"])


def test_the_papers_cells_are_those_of_the_slides():
    assert paper.TABLE["NVISA(avg±std)"] == ("96.55±2.64", "62.63±2.92", "89.15±2.36", "71.37±2.79", "37.32±0.70")
    assert paper.TABLE["DEC"][0] == "84.30*"
    assert len(paper.TABLE) == 10
    assert len(paper.ABLATION) == 13


# ---- running ------------------------------------------------------------------------------------------------------


def test_an_experiments_jobs():
    table1 = EXPERIMENTS["table1"]
    jobs = table1.jobs()
    assert Job("vade/bernoulli", "mnist", 2) in jobs
    assert Job("vade/bernoulli", "mnist", 3) not in jobs  # three seeds for the rows that are compared with,
    assert Job("bound_alone/gmm", "fashion_mnist", 4) in jobs  # five for NVISA on images,
    assert Job("default", "fashion_mnist", 4) in EXPERIMENTS["beyond"].jobs()  # and with consistency
    assert Job("bound_alone/gmm_features", "cifar10_effnet_lite2", 3) not in EXPERIMENTS["features"].jobs()
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert len(set(jobs)) == len(jobs)
    assert Job("vade/features", "cifar10_effnet_lite2", 0) in EXPERIMENTS["features"].jobs(["vade"])
    assert {job.recipe for job in table1.jobs(["nvisa"], ["mnist"], [7])} == {
        "bound_alone/random", "bound_alone/gmm", "bound_alone/umap"}  # fmt: skip
    beyond = {job.recipe for job in EXPERIMENTS["beyond"].jobs()}
    assert beyond >= {"kmeans/default", "vat/default", "default", "pulled", "augment", "vat_augment"}
    with pytest.raises(ValueError, match="no such"):
        table1.jobs(["no such"])


def test_the_command_line_knows_every_experiment(capsys, tmp_path):
    at_hand = {entry.name for entry in datasets.available() if entry.present or entry.fetchable}
    for name, experiment in EXPERIMENTS.items():
        assert main(["bench", name, "--plan", "--records", str(tmp_path), "--json"]) == 0
        planned = json.loads(capsys.readouterr().out)["runs"]
        found = [Job(entry["recipe"], entry["dataset"], entry["seed"]) for entry in planned]
        assert found == [job for job in experiment.jobs() if job.dataset in at_hand]
        assert main(["bench", name, "--plan", "--records", str(tmp_path)]) == 0
        assert f"\n{len(planned)} runs are missing" in f"\n{capsys.readouterr().out}"


def test_what_is_there_is_not_made_again_unless_by_another_version_or_crashed(tmp_path):
    jobs = [Job("default", "digits", seed) for seed in range(5)]
    kinds = [{}, {"versions": {"nvisa": "0.0.1"}}, {"status": "crashed"}, {"status": "diverged", "metrics": {}}]
    for seed, changes in enumerate(kinds):
        run.write(run.record_path(tmp_path, "digits", "default", seed), record(seed=seed, **changes))
    assert bench.missing(jobs, tmp_path) == [jobs[1], jobs[2], jobs[4]]


def test_a_record_of_other_settings_is_made_again(tmp_path, monkeypatch):
    path = tmp_path / "record.json"

    def current(recipe="bound_alone/gmm", changes=(), without=(), **more):
        start = RECIPES[RECIPES[recipe].start].build(10, 0) if RECIPES[recipe].start else None
        params = run._params(RECIPES[recipe].build(10, 0, start))
        params = {name: run._written(value) for name, value in params.items()}
        params = {name: value for name, value in params.items() if name not in without} | dict(changes)
        more = more or ({"start": {"recipe": RECIPES[recipe].start}} if start else {})
        run.write(path, record(recipe=recipe, params=params, **more))
        return run.is_current(path, recipe, 0)

    assert all(current(recipe) for recipe in RECIPES)
    network = run._written(RECIPES["bound_alone/gmm"].settings["network"])
    older = network.replace(", prior_components=1", "")
    assert older != network
    assert current(changes={"network": older}), "a field that is younger than the record has its default there"
    assert not current(changes={"network": network.replace(", prior_covariance='full'", "")}), "and not today's value"
    assert not current(changes={"network": network.replace("256", "255")})
    assert not current(changes={"network": network.replace("hidden", "renamed")})
    assert not current(changes={"network": "print('not a setting')"})
    assert current(without=["posterior"])
    assert not current(without=["n_samples"]), "the default is 3, and the recipe has 15"
    assert not current(changes={"init__masked": 0.1}), "what it starts from has other settings"
    assert not current("two_starts", changes={"init__n_init": 1}), "nor where another start stands before it"
    assert not current(start={"recipe": "ae_gmm/default"})
    assert current("gmm/default")
    assert not current("gmm/default", changes={"gaussianmixture__reg_covar": 1e-3})
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", {"n_samples": 4}))
    run.write(path, record())
    assert not run.is_current(path, "default", 0)


def test_the_estimate_rests_on_the_nearest_records():
    jobs = [Job("default", "mnist", 9), Job("default", "digits", 0), Job("pulled", "mnist", 0)]
    records = [record(seconds=10.0), record(seconds=20.0, seed=1), record(seconds=60.0, recipe="selection")]
    records.append(record(seconds=1000.0, seed=2, status="crashed"))
    found = [(entry.seconds, entry.basis) for entry in bench.estimate([*jobs, Job("dec/default", "mnist", 0)], records)]
    recipe, method = (15.0, "the same recipe on other data"), (30.0, "the same method")
    assert found == [(15.0, "the same"), recipe, method, (0.0, "nothing")]
    tree = record(method="ltvae_full", recipe="ltvae_full/bernoulli", seconds=7.0)
    (entry,) = bench.estimate([Job("ltvae_full/default", "digits", 0)], [tree])
    assert (entry.seconds, entry.basis) == (7.0, "the same method")


@pytest.mark.filterwarnings("ignore:.*columns are constant", "ignore:.*not stored")
def test_a_start_stands_after_the_one_that_the_settings_name(tmp_path, monkeypatch):
    tiny = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=1)}
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", tiny | {"init": "random"}))
    two = Recipe("nvisa", tiny | {"init": "gmm", "n_init": 2}, start="default")
    monkeypatch.setitem(RECIPES, "two_starts", two)
    made = run.run("two_starts", "digits", 0, models=tmp_path)
    assert (made["status"], made["params"]["init__init"], len(made["restarts"])) == ("ok", "random", 2)
    assert made["neighbor_information"] == max(fit["neighbor_information"] for fit in made["restarts"])
    start = nvisa.load(run.model_path(tmp_path, "digits", "default", 0))
    assert two.build(10, 0, start).init == ("gmm", start)
    kept = nvisa.load(run.model_path(tmp_path, "digits", "two_starts", 0))
    assert kept.init == ("gmm", None), "a clusterer is not stored"


KEYS = {  # docs: design, section 5
    "method", "recipe", "dataset", "dataset_digest", "n_train", "n_test", "seed", "params", "metrics", "status",
    "seconds", "peak_memory_mb", "history", "versions", "commit", "machine",
}  # fmt: skip


def stub(monkeypatch, *programs):
    """In place of a run: this Python program for the job of seed 0, that for seed 1, ..."""
    monkeypatch.setattr(bench, "_command", lambda job, *_: [sys.executable, "-c", programs[job.seed]])


@pytest.fixture(autouse=True)
def _an_interrupt_is_heard():
    """A shell without job control starts background jobs with SIGINT ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_process_that_dies_leaves_a_record_and_the_others_go_on(tmp_path, monkeypatch):
    said, jobs = [], [Job("default", "digits", seed) for seed in range(5)]
    paths = [run.record_path(tmp_path, "digits", "default", job.seed) for job in jobs]
    run.write(tmp_path / "made", record(seed=2))
    work = f"os.rename({str(tmp_path / 'made')!r}, {str(paths[2])!r})"
    old = [record(seed=seed, versions={"nvisa": "0.0.1"}) for seed in range(5)]
    for path, was in zip(paths, old, strict=True):
        run.write(path, was)
    stub(
        monkeypatch,
        "import os, sys; print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)",
        f"raise SystemExit({run.NO_DATA})",
        f"import os; assert os.environ['OMP_NUM_THREADS'] == '1'; {work}; os.kill(os.getpid(), 9)",  # after its work
        "import os; os.kill(os.getpid(), 2)",
        "import os; os.kill(os.getpid(), 15)",
    )
    ends = bench.bench(jobs, workers=2, records=tmp_path, say=said.append)
    assert list(ends.values()) == ["crashed", "no data", "ok", "interrupted", "interrupted"]
    made, *others = [json.loads(path.read_text()) for path in paths]
    assert (made["status"], made["seed"], made["method"]) == ("crashed", 0, "nvisa")
    assert "-9\nlast words" in made["error"]
    assert set(made) >= KEYS
    assert others == [old[1], record(seed=2), *old[3:]], "what was there stays until there is something new"
    assert len(said) == 5
    assert bench.missing(jobs, tmp_path) == [job for job in jobs if job.seed != 2]
    assert all(tables.rendered(name, [made]) for name in tables.TABLES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_runs_and_leaves_no_record(tmp_path, monkeypatch, number):
    jobs = [Job("default", "digits", seed) for seed in range(4)]
    sleep = "import os, sys, time, pathlib; (pathlib.Path({!r}) / str(os.getpid())).touch(); time.sleep(60)"
    stub(monkeypatch, *[sleep.format(str(tmp_path))] * 4)
    before = signal.getsignal(signal.SIGTERM)

    def interrupt():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)  # to the parent alone: whoever ends the children, it is bench

    thread, started = threading.Thread(target=interrupt, daemon=True), time.monotonic()
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        bench.bench(jobs, workers=2, records=tmp_path / "records", say=lambda line: None)
    thread.join()
    assert time.monotonic() - started < 50, "they have slept on to their end"
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2, "no other has started, and no record is there"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert signal.getsignal(signal.SIGTERM) == before
    assert bench.missing(jobs, tmp_path / "records") == jobs


def test_the_exit_code_says_how_the_runs_ended(tmp_path, monkeypatch, capsys):
    words = ["bench", "digits", "--records", str(tmp_path), "--json", "--seeds"]
    stub(monkeypatch, "raise SystemExit(7)", f"raise SystemExit({run.NO_DATA})", "import os; os.kill(os.getpid(), 2)")
    assert [main([*words, seed]) for seed in "012"] == [1, 2, 130]
    assert main([*words, "0", "1"]) != 0
    assert main([*words, "0", "--plan"]) == 0
    assert '"crashed": 1' in capsys.readouterr().out
    run.write(run.record_path(tmp_path, "digits", "default", 0), record())
    assert main([*words, "0"]) == 0


def test_bench_and_table_from_the_shell(tmp_path, monkeypatch, capsys):
    words = ["bench", "digits", "--records", str(tmp_path), "--data-home", str(tmp_path), "--json"]
    assert main([*words, "--plan"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (len(plan["runs"]), plan["unknown"], plan["seconds"]) == (5, 5, 0)
    run.write(run.record_path(tmp_path, "digits", "default", 0), reaching(0.8, dataset="digits", seconds=40.0))
    assert main([*words, "--plan", "--workers", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == pytest.approx(4 * 40 / 2)
    assert main(["table", "default", "--records", str(tmp_path), "--format", "csv"]) == 0
    assert "80.00" in capsys.readouterr().out
    assert main(["table", "nonsense", "--records", str(tmp_path)]) == 2
    assert main(["bench", "features", "--records", str(tmp_path), "--data-home", str(tmp_path), "--plan"]) == 0
    assert "cifar10_effnet_lite2: not here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "-3"], "--workers: expected at least 1, got -3"),
        (["--workers", "0"], "--workers: expected at least 1, got 0"),
        (["--seeds", "0", "-1"], "--seeds: expected whole numbers of at least 0, got -1"),
        (["--datasets", "digits", "foo"], "cifar10_effnet_lite2, cifar10_resnet50,"),
        (["--datasets", "digits", "foo"], ", got foo. Try nvisa data list."),
    ],
)
def test_a_bench_that_cannot_be_is_refused(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setattr("nvisa.commands.experiments.run_all", lambda *_, **__: pytest.fail("ran"))
    argv = ["bench", "digits", "--records", str(tmp_path / "none"), "--data-home", str(tmp_path), *words]
    assert main([*argv, "--plan"]) == main(argv) == 2
    assert message in capsys.readouterr().err


def test_a_table_of_no_records_says_where_they_would_be(tmp_path, capsys):
    assert main(["table", "table1", "--records", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"No record of table1 in {tmp_path} yet; nvisa bench makes them.\n"
    assert main(["table", "table1", "--records", str(tmp_path / "none")]) == 2
    assert "none: expected a folder of records, got none there" in capsys.readouterr().err


def test_the_controls_find_separate_blobs():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(150, 60)) + 20 * np.repeat(np.eye(3, 60), 50, axis=0)
    y = np.repeat([0, 1, 2], 50)
    for name in ("kmeans", "gmm"):
        assert accuracy(y, RECIPES[f"{name}/default"].build(3, 0).fit(X).predict(X)) == 1.0
    assert [RECIPES[f"kmeans/{name}"].build(3, 0).n_init for name in ("default", "one_start")] == [10, 1]
    control = RECIPES["vat/default"].build(3, 0)
    assert (control.inference, control.init, control.consistency) == (None, "random", "vat")


def test_the_clock_of_a_curve_stands_still_while_people_look(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(run.time, "process_time", lambda: 0.5 * now[0])

    def slow(y, labels):
        now[0] += 50.0
        return float((y == labels).mean())

    monkeypatch.setattr(run, "accuracy", slow)
    y = np.array([0, 1, 1, 1])
    watch = run._Watch(datasets.Dataset("four", np.eye(4, dtype="f4"), y, None, None, (4,), ("a", "b"), ""))
    fitted = SimpleNamespace(_labels=lambda X: X.argmax(1))  # row i is of cluster i
    for _ in range(2):
        now[0] += 3.0
        watch(fitted, {"stage": "training", "epoch": 1, "noise": 2.0})
    now[0] += 1.0
    assert [point["elapsed"] for point in watch.curve] == [3.0, 6.0]
    assert list(watch.elapsed()) == [7.0, 3.5]
    assert watch.curve[0] == {"stage": "training", "epoch": 1, "elapsed": 3.0, "accuracy": 0.5}


def test_a_curve_shows_the_accuracy_on_the_test_rows_where_there_are_some():
    train, test = np.zeros((4, 1), "f4"), np.ones((5, 1), "f4")
    y_train, y_test = np.array([0, 1, 0, 1]), np.array([0, 0, 0, 0, 1])
    watch = run._Watch(datasets.Dataset("split", train, y_train, test, y_test, (1,), ("a", "b"), ""))
    watch(SimpleNamespace(_labels=lambda X: X[:, 0].astype(int)), {})  # all in one cluster
    assert watch.curve[0]["accuracy"] == 0.8


@pytest.mark.filterwarnings("ignore:.*columns are constant")
def test_a_run_becomes_a_record_that_is_not_made_again(tmp_path, monkeypatch, capsys):
    tiny = {"init": "random", "network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=1)}
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", tiny, curve=True))
    run.main(["--datasets", "digits", "--seeds", "3", "--records", str(tmp_path), "--models", str(tmp_path / "m")])
    assert "digits default seed 3: ok" in capsys.readouterr().err
    model = nvisa.load(run.model_path(tmp_path / "m", "digits", "default", 3))
    assert model.random_state == 3
    path = run.record_path(tmp_path, "digits", "default", 3)
    made = json.loads(path.read_text())
    assert made["metrics"]["train"]["accuracy"] > 0.1
    assert made["curve"][-1]["accuracy"] == pytest.approx(made["metrics"]["train"]["accuracy"])
    assert made["n_train"] == 1797
    assert made["seed"] == 3
    assert made["start_score"] is None
    assert set(made) >= KEYS
    before = path.stat().st_mtime_ns
    run.main(["--datasets", "digits", "--seeds", "3", "--records", str(tmp_path)])
    assert path.stat().st_mtime_ns == before


def test_a_run_that_fails_leaves_a_record(monkeypatch, tmp_path):
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", {"inference": "no such"}))
    run.main(["--datasets", "digits", "--seeds", "0", "--records", str(tmp_path)])
    made = json.loads(run.record_path(tmp_path, "digits", "default", 0).read_text())
    assert made["status"] == "crashed"
    assert "no such" in made["error"]
    assert (made["metrics"], made["history"], set(made) >= KEYS) == ({}, [], True)
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", {"inference": "none such either"}))
    run.main(["--datasets", "digits", "--seeds", "0", "--records", str(tmp_path)])
    assert "none such either" in run.record_path(tmp_path, "digits", "default", 0).read_text(), "tried again"


def test_a_long_history_keeps_its_ends():
    thin = run._thinned([{"epoch": e} for e in range(1000)])
    assert len(thin) == run.LONGEST_HISTORY
    assert (thin[0]["epoch"], thin[-1]["epoch"]) == (0, 999)
    assert run._thinned(thin) == thin


# ---- figures ------------------------------------------------------------------------------------------------------


def test_the_loss_is_minus_the_bound_of_the_joint_training():
    epochs = [("pretraining", 1, None), ("training", 1, -5.0), ("training", 2, 3.0), ("training", 3, None)]
    history = [{"stage": s, "epoch": e, "n_epochs": 4} | ({} if b is None else {"bound": b}) for s, e, b in epochs]
    assert figures.losses(record(history=history)) == ([0.25, 0.5], [5.0, -3.0])


@pytest.mark.filterwarnings("ignore:.*columns are constant")
def test_figures_from_records_and_models(tmp_path, monkeypatch):
    tiny = {"init": "random", "consistency": None, "network": Network(hidden=(8,), latent_dim=2)}
    recipe = Recipe("nvisa", tiny | {"training": Training(epochs=1)})
    for name in figures.SAMPLED:
        monkeypatch.setitem(RECIPES, f"ablation/{name}", recipe)
    words = ["--records", str(tmp_path / "none"), "--models", str(tmp_path / "models"), "--out", str(tmp_path)]
    figures.main([*words, "--only", "samples"])
    assert imread(tmp_path / "samples.png").std() > 0.1
    model = nvisa.load(run.model_path(tmp_path / "models", "digits", "ablation/enum_y", 0))
    z, y, _ = figures.prior_points(model, 4000, np.random.RandomState(1))
    standard = (z - model.module_.prior.loc[y].detach().numpy()) / model.module_.prior.scale[y].detach().numpy()
    assert abs(standard.mean()) < 0.05  # 4 sigma of 8,000 normal numbers
    assert abs(standard.std() - 1) < 0.035


def test_the_losses_of_the_ablation_are_on_one_axis(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure.axes[0]))
    history = [{"stage": "training", "epoch": e, "n_epochs": 2, "bound": b} for e, b in ((1, -5.0), (2, 3.0))]
    digits = {"dataset": "digits", "history": history}
    records = [record(recipe="ablation/vimco", **digits), record(recipe="ablation/enum_y", **digits)]
    records += [record(recipe="ablation/nvil", **digits | {"seed": 1}), record(recipe="default", **digits)]
    figures.loss(records, tmp_path, tmp_path, None)
    assert [line.get_label() for line in drawn[0].lines] == ["EnumY, NVISA", "VIMCO, NVISA"]
    assert all(list(line.get_ydata()) == [5.0, -3.0] for line in drawn[0].lines)


def test_time_is_drawn_of_runs_that_ended(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure.axes[0]))
    curve = [{"stage": "training", "seconds": 4.0, "elapsed": 30.0, "accuracy": 0.25}]
    start = {"seconds": 20.0}
    records = [reaching(0.8, seconds=80.0, cpu_seconds=40.0, curve=curve, start=start)]
    records += [reaching(0.9, seed=1, seconds=60.0, cpu_seconds=60.0)]
    figures.time([*records, record(seed=2, status="diverged", metrics={})], tmp_path, tmp_path, None)
    point, *curves = drawn[0].lines
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (50.0, pytest.approx(85.0))
    assert [list(line.get_ydata()) for line in curves] == [[25.0], []]
    assert list(curves[0].get_xdata()) == [25.0]  # half of 20 + 30: two seconds of the clock were one of a core


@pytest.mark.filterwarnings("ignore:.*columns are constant")
def test_the_latent_space_is_drawn_with_its_accuracies(tmp_path, monkeypatch):
    digits, drawn = datasets.load("digits"), []
    tiny = {"init": "random", "consistency": None, "network": Network(hidden=(8,), latent_dim=2), "random_state": 0}
    model = METHODS["nvisa"](training=Training(epochs=1), **tiny).fit(digits.X_train)
    split = replace(digits, X_test=digits.X_train[:90], y_test=digits.y_train[:90])
    monkeypatch.setattr(figures, "N_POINTS", 90)
    monkeypatch.setattr(figures, "fitted", lambda *_: (model, {}))
    monkeypatch.setattr(figures.datasets, "load", lambda *_: split)
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure.axes))
    figures.tsne([], tmp_path, tmp_path, None)
    test, prior = drawn[0]
    assert test.get_title() == f"test digits: accuracy {accuracy(split.y_test, model.predict(split.X_test)):.2%}"
    assert len(test.collections[0].get_offsets()) == len(prior.collections[0].get_offsets()) == 90
    np.testing.assert_array_equal(test.collections[0].get_array(), model.predict(split.X_test))


def test_rows_side_by_side_wait_for_the_start_that_they_share(tmp_path, monkeypatch):
    class HeldError(Exception):
        pass

    def start(recipe, data, seed, models):
        lock = run.model_path(models, data.name, recipe, seed).with_suffix(".lock")
        with lock.open() as another, pytest.raises(BlockingIOError):
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise HeldError

    monkeypatch.setattr(run, "fitted", start)
    for _ in range(2):  # who fails lets go
        with pytest.raises(HeldError):
            run.run("vade/bernoulli", "digits", 0, models=tmp_path)


@pytest.mark.filterwarnings("ignore:.*columns are constant", "ignore:.*not stored")
def test_a_record_holds_the_cost_of_the_model_it_starts_from(tmp_path, monkeypatch):
    tiny = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=1), "n_init": 1}
    monkeypatch.setitem(RECIPES, "ae_gmm/default", Recipe("ae_gmm", tiny))
    monkeypatch.setitem(RECIPES, "vade/default", Recipe("vade", tiny, start="ae_gmm/default"))

    def made(seed=0):
        record = run.run("vade/default", "digits", seed, models=tmp_path)
        return record, record["start"]

    first, start = made()
    model = run.model_path(tmp_path, "digits", "ae_gmm/default", 0)
    assert (first["status"], start["recipe"]) == ("ok", "ae_gmm/default")
    assert first["seconds"] > start["seconds"] > 0
    assert first["cpu_seconds"] > start["cpu_seconds"] > 0
    kept = (model / "manifest.json").read_bytes()

    again, same = made()
    assert same == start, "the model is there: it is taken, and its cost with it"
    assert (model / "manifest.json").read_bytes() == kept
    assert (again["metrics"], again["seconds"] > start["seconds"]) == (first["metrics"], True)
    manifest = json.loads(kept)
    del manifest["params"]["network"]["prior_covariance"]
    (model / "manifest.json").write_text(json.dumps(manifest))
    assert made()[1] == start, "a setting that is younger than the model has its default in it"
    assert made(seed=1)[1] != start, "every seed has its own"

    manifest["extra"]["dataset_digest"] = "of other rows"
    (model / "manifest.json").write_text(json.dumps(manifest))
    start, before = made()[1], start
    assert start != before, "a model of other data is no start"

    monkeypatch.setitem(RECIPES, "ae_gmm/default", Recipe("ae_gmm", tiny | {"n_init": 2}))
    assert made()[1] != start, "the recipe is another one: so is its model"
