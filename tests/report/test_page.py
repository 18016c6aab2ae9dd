"""The page says what the clusterer says."""

import re
from copy import copy
from pathlib import Path

import numpy as np
import pytest

from nvisa import AEGMM
from nvisa.report import page, write_report
from nvisa.report.cluster_statistics import traversal
from nvisa.report.evaluation import Evaluation
from report_pages import QUICK, decoded, opened, payload_of
from small_methods import make

pytest.importorskip("plotly")


pytest.importorskip("PIL.Image")


DOCUMENT = Path(__file__).parents[2] / "docs" / "report.md"


def test_a_cluster_of_a_few_rows_is_not_in_use(fitted):
    """As in the warning of a fit."""
    lost = copy(fitted)
    lost.labels_ = np.repeat([0, 1], [100, 3])
    assert ("clusters in use", "1 of 2") in [line[:2] for line in page._overview(Evaluation(lost))]


def test_the_page_holds_what_the_clusterer_says(fitted, rows, tmp_path):
    path = write_report(
        fitted, rows, ["a"] * 30 + ["b"] * 30, out=tmp_path / "r.html", feature_shape=(4, 4), maps=("pca",)
    )
    held = payload_of(path)
    np.testing.assert_array_equal(decoded(held["cluster"]), fitted.predict(rows))
    np.testing.assert_array_equal(decoded(held["second"]), np.argsort(fitted.predict_proba(rows))[:, -2])
    assert decoded(held["label"]).tolist() == [0] * 30 + [1] * 30
    sheet = np.asarray(opened(held["sprites"]["urls"][0]).convert("L"))
    images = sheet.reshape(4, 64, 4).swapaxes(0, 1)[decoded(held["place"])].reshape(60, 16)
    shades = 255 * (rows - rows.min()) / (rows.max() - rows.min())
    np.testing.assert_allclose(images, shades, atol=0.51)
    score = held["score"]
    values = score["low"] + (score["high"] - score["low"]) / 65_534 * decoded(score)
    np.testing.assert_allclose(values, fitted.score_samples(rows), atol=(score["high"] - score["low"]) / 65_000)
    text = path.read_text()
    worst = int(fitted.score_samples(rows).argmin())
    assert re.search(r'id="anomalies">.*?data-row="(\d+)"', text, re.DOTALL)[1] == str(worst)


def test_the_walk_of_a_cluster_is_what_the_clusterer_decodes(fitted, rows):
    evaluation = Evaluation(fitted, rows)
    cards = page._clusters(evaluation, gallery := page.Gallery(evaluation))
    z, labels, shown = fitted.transform(rows), fitted.predict(rows), 0
    for card in cards:
        walks = [members for title, members in card["parts"] if title.startswith("A walk")]
        if (labels == card["k"]).sum() >= 3:
            ((first, *_, last),) = walks
            shown += 1
            ends = traversal(z[labels == card["k"]], page.PER_CLUSTER)[[0, -1]]
            np.testing.assert_allclose(
                np.stack([gallery.rows[first["at"]], gallery.rows[last["at"]]]),
                fitted.decode(ends),
                rtol=1e-5,
                atol=1e-6,
            )
        else:
            assert walks == []
    assert shown


def test_the_same_page_is_the_same_file(fitted, rows, tmp_path):
    first, second = (write_report(fitted, rows, out=tmp_path / name, maps=("pca",)) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_page_without_rows(fitted, tmp_path):
    path = write_report(fitted, out=tmp_path / "r.html", feature_shape=(4, 4))
    assert "maps" not in payload_of(path)
    assert "training rows" in path.read_text()


def test_a_method_without_a_density(rows, tmp_path):
    path = write_report(AEGMM(2, **QUICK).fit(rows), rows, out=tmp_path / "r.html", maps=("pca",))
    assert "score" not in payload_of(path)
    assert 'id="anomalies"' not in path.read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X": np.zeros((3, 16)), "y": [1]}, "labels y: expected one a row, 3, got 1"),
        ({"X": np.zeros((3, 16)), "names": ["a"]}, "names: expected one a row, 3, got 1"),
        ({"X": np.zeros((3, 16)), "feature_shape": (4, 5)}, r"expected the shape of 16 features, got \(4, 5\)"),
        ({"X": np.zeros((3, 15))}, "15 features"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(fitted, given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_report(fitted, out=tmp_path / "r.html", **given)


def test_the_docs_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1], names)
    assert payload_of(names["path"])["n"] == 178


def test_a_table_with_gaps_and_categories_has_its_names_on_the_page(tmp_path):
    pd = pytest.importorskip("pandas")
    random = np.random.RandomState(0)
    frame = pd.DataFrame({"age": random.randn(60), "town": random.choice(["Oslo", "Rome"], 60), "member": True})
    frame.loc[3, "age"], frame.loc[4, "town"] = np.nan, None
    model = make("nvisa", 1).fit(frame)
    text = write_report(model, frame, out=tmp_path / "page.html").read_text()
    assert "<td>Oslo</td>" in text
    assert "<td>Rome</td>" in text
    assert "nan" not in re.findall(r"<td>([^<]*)</td>", text)
