"""Tables: a cell says what the records hold, and a document what the tables say."""

from pathlib import Path

import pytest

from benchmark.made_records import reaching, record
from nvisa.benchmark import RECORDS, paper, tables
from nvisa.benchmark.recipes import ABLATION
from nvisa.benchmark.records import load_records

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", tables.documents(ROOT), ids=lambda path: path.name)
def test_the_documents_hold_what_the_records_say(document):
    text = document.read_text()
    assert tables.rewrite(text, load_records(ROOT / RECORDS)) == text, "run `make table`"


def test_the_documents_are_all_pages_with_a_place_but_those_of_speed():
    found = {str(path.relative_to(ROOT)) for path in tables.documents(ROOT)}
    methods = {f"docs/methods/{name}.md" for name in ("ae_gmm", "dec", "gm_gan", "gmvae", "ltvae", "vade", "vae_gmm")}
    assert found >= {"README.md", "docs/benchmark.md", "docs/benchmark-in-full.md"} | methods
    assert not found & set(tables.SPEED)
    assert all(tables.PLACE.search((ROOT / name).read_text()) for name in tables.SPEED)


def test_a_cell_is_the_mean_and_the_sample_deviation():
    assert tables.cell([1.0, 2.0, 4.0]) == "2.33 ± 1.53"
    assert tables.cell([2.0]) == "2.00"
    assert tables.cell([]) == "-"


def test_a_diverged_run_is_shown_and_does_not_enter_the_mean():
    records = [record(), reaching(0.7, seed=1), record(seed=2, status="diverged", metrics={})]
    (row,) = tables.TABLES["default"](records).rows
    assert row[2] == "60.00 ± 14.14 (N/A)"
    assert row[5] == "0, 1, 2"
    (row,) = tables.TABLES["paper_random"]([record(recipe="paper/random")]).rows
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
    assert rows["NVISA (paper), random start"]["fashion_mnist, slides"] == "62.63±2.92, best 66.14"
    (row,) = tables.TABLES["mnist"](records).rows
    assert row[:4] == ("DEC", "85.00 ± 7.07", "90.00", "86.00 ± 7.07")
    assert row[4:] == ("90.00 ± 0.00", "50.00 ± 0.00", "40.00 ± 0.00", "2", "10 (10)", "8 (8)")


def test_what_the_slides_only_propose_is_in_no_table_with_their_cells():
    records = [reaching(0.9, recipe=recipe) for recipe in ("default", "imsat/default", "augment", "kmeans/default")]
    assert [row[0] for row in tables.TABLES["mnist"](records).rows] == ["k-means"]
    beyond = ["k-means", "IMSAT", "NVISA with consistency", "NVISA with augmentation"]
    assert [row[0] for row in tables.TABLES["mnist_beyond"](records).rows] == beyond
    assert tables.TABLES["default"](records).head[-1] == "seconds (longest)"


def test_the_headline_is_one_look_at_all_data():
    grid = tables.TABLES["headline"]([reaching(0.9, recipe="from_imsat"), reaching(0.8, recipe="vade/umap")])
    rows = {row[0]: row[1] for row in grid.rows}
    assert len(grid.rows) <= 8
    assert (rows["NVISA started from IMSAT"], rows["VaDE, UMAP start"], rows["NVISA"]) == (
        "90.00 [1]",
        "80.00 [1]",
        "not run",
    )


def test_a_label_free_score_is_held_against_the_labels():
    def run_of(seed, accuracy, information, bound):
        history = [{"bound": bound}]
        return reaching(accuracy, recipe="umap_start", seed=seed, neighbor_information=information, history=history)

    records = [run_of(0, 0.5, 1.0, 3.0), run_of(1, 0.7, 3.0, 2.0), run_of(2, 0.6, 2.0, 1.0)]
    records.append(record(seed=3, status="diverged", metrics={}))
    (row,) = tables.TABLES["selection"](records).rows
    assert row == ("mnist", "umap_start", "3", "60.00 ± 10.00, best 70.00", "70.00", "1.00", "-0.50")


def test_the_ablation_has_every_row_of_the_slides():
    grid = tables.TABLES["ablation"]([reaching(0.4, recipe=f"ablation/{row}", dataset="digits") for row in ABLATION])
    published = {(inference, method): accuracy for inference, method, accuracy in paper.ABLATION if inference != "-"}
    assert published == {row[:2]: row[-1] for row in grid.rows[:-1]}
    assert grid.rows[-1][-1] == paper.WITH_AE_GMM_INIT
    assert set(tables.ABLATION_ROWS) == set(ABLATION)
    assert tables.ablation_cell("a row of our own") == "-"


def test_a_table_without_records_says_so():
    assert all(tables.rendered(name, []) == tables.NO_RECORD for name in tables.TABLES)


def test_of_each_seed_s_two_fits_the_one_of_larger_information_is_taken():
    def run_of(recipe, seed, accuracy, information):
        return reaching(accuracy, recipe=recipe, seed=seed, neighbor_information=information)

    records = [run_of("umap_start", 0, 0.5, 1.0), run_of("umap_start", 1, 0.7, 3.0), run_of("umap_start", 2, 0.1, 9.0)]
    records += [run_of("from_imsat", seed, *found) for seed, found in ((1, (0.6, 2.0)), (0, (0.9, 2.0)))]
    records += [run_of("from_imsat", 2, 0.2, 1.0), run_of("umap_start", 3, 0.9, 1.0)]  # a wrong choice; no pair
    (row,) = tables.TABLES["starts"](records).rows
    default, other, kept = "43.33 ± 30.55", "56.67 ± 35.12", "56.67 ± 41.63"
    assert row == ("mnist", default, "4.333", other, "1.667", kept, "2 of 3")


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
    monkeypatch.setattr(tables, "documents", lambda: [page])
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
