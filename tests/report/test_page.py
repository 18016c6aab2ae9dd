"""What a report page says: its numbers against direct computation, its packing against unpacking."""

import base64
import gzip
import io
import json
import re
from copy import copy
from functools import partial
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from nvisa import AEGMM, GMVAE, LTVAE, NVISA, VAEGMM, Network, Training, VaDE, cli, metrics
from nvisa.nets.rows import blocks
from nvisa.report import curves, facts, library, maps, pack, page, write_report
from nvisa.report.subject import Subject

pytest.importorskip("plotly")
Image = pytest.importorskip("PIL.Image")

DOCUMENT = Path(__file__).parents[2] / "docs" / "report.md"
N, K = 60, 4
QUICK = {"network": Network(hidden=(8,), latent_dim=3), "training": Training(epochs=1), "random_state": 0}


@pytest.fixture
def random():
    return np.random.RandomState(1)


@pytest.fixture
def q(random):
    return random.dirichlet(np.full(K, 0.3), size=N)


@pytest.fixture(scope="module")
def rows():
    random = np.random.RandomState(2)
    return np.concatenate([random.rand(30, 16) + shift for shift in (0, 2)])


@pytest.fixture(scope="module")
def fitted(rows):
    return NVISA(2, init="random", consistency=None, **QUICK).fit(rows)


# ---- facts ------------------------------------------------------------------------------------------------------


def test_effective_clusters_at_its_limits():
    assert facts.effective_clusters(np.array([7, 7, 7, 0])) == pytest.approx(3)
    assert facts.effective_clusters(np.array([9, 0, 0])) == pytest.approx(1)


def test_a_cluster_of_a_few_rows_is_not_in_use(fitted):
    """As in the warning of a fit."""
    lost = copy(fitted)
    lost.labels_ = np.repeat([0, 1], [100, 3])
    assert ("clusters in use", "1 of 2") in [line[:2] for line in page._glance(Subject(lost))]


def test_typical_rows_are_the_nearest_in_the_clusters_own_deviations(random):
    z, labels = random.randn(N, 3), random.randint(0, 3, N)
    found = facts.typical(z, labels, 4, 5)
    for k in range(3):
        own = np.flatnonzero(labels == k)
        far = [np.sum(((z[i] - z[own].mean(0)) / z[own].std(0)) ** 2) for i in own]
        assert found[k].tolist() == own[np.argsort(far)[:5]].tolist()
    assert len(found[3]) == 0
    stretched = facts.typical(z * [1, 100, 1e-4] + 3, labels, 4, 5)
    assert [rows.tolist() for rows in stretched] == [rows.tolist() for rows in found]


def test_uncertain_rows_are_those_of_their_cluster_with_the_smallest_maximum(q):
    labels = q.argmax(1)
    for k, found in enumerate(facts.uncertain(q, labels, 3)):
        own = sorted((q[i].max(), i) for i in range(N) if labels[i] == k)
        assert found.tolist() == [i for _, i in own[:3]]


def test_overlap_is_the_joint_distribution_of_two_draws(q):
    joint = facts.overlap(q)
    for a in range(K):
        for b in range(K):
            assert joint[a, b] == pytest.approx(sum(q[i, a] * q[i, b] for i in range(N)) / N)
    assert joint.sum() == pytest.approx(1)
    # P(second is the other | first in {a, b}), by enumeration of the four outcomes.
    first = joint[0].sum() + joint[2].sum()
    assert facts.confusion_rate(joint, 0, 2) == pytest.approx((joint[0, 2] + joint[2, 0]) / first)


def test_certain_clusters_do_not_overlap():
    joint = facts.overlap(np.eye(3)[[0, 0, 1, 2]])
    assert joint.tolist() == np.diag([0.5, 0.25, 0.25]).tolist()
    assert facts.confused_pairs(joint, 5) == []


def test_pairs_come_in_the_order_of_their_overlap(q):
    joint = facts.overlap(q)
    pairs = facts.confused_pairs(joint, 10)
    assert pairs == sorted(combinations(range(K), 2), key=lambda pair: -joint[pair])


def test_rows_between_two_clusters():
    q = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.4, 0.2, 0.4]])
    assert facts.between(q, 0, 1, 2).tolist() == [1, 0]
    assert facts.between(q, 0, 2, 1).tolist() == [3]


def test_contrasts_against_direct_means(random, monkeypatch):
    monkeypatch.setattr(facts, "blocks", partial(blocks, size=7))  # so that they are cut in the middle
    X, labels = random.randn(N, 5).astype(np.float32), random.randint(0, 3, N)
    X[:, 4] = 0.1
    inside, outside, contrast = facts.contrasts(X, labels, 4)
    for k in range(3):
        here, there = X[labels == k].mean(0), X[labels != k].mean(0)
        np.testing.assert_allclose(inside[k], here, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outside[k], there, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(contrast[k, :4], (here - there)[:4] / X[:, :4].std(0), rtol=1e-4, atol=1e-6)
    assert (contrast[:, 4] == 0).all()  # constant
    assert (contrast[3] == 0).all()  # empty


def test_deviations_have_unit_variance(random):
    X = 5 + 3 * random.randn(N, 4)
    far = facts.deviations(X, np.arange(N))
    np.testing.assert_allclose(far.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(far.std(0), 1)


def test_beyond_the_limit_the_worst_reconstructed_rows_are_scored(random):
    X = random.randn(200, 3)
    X[17] = 40.0  # which a model that reconstructs zeros misses most
    found = facts.scores(lambda x: -(x**2).sum(1), np.zeros_like, X, np.random.RandomState(0), 50)
    scored = np.isfinite(found)
    assert scored[17]
    assert 45 <= scored.sum() <= 50
    np.testing.assert_allclose(found[scored], -(X[scored] ** 2).sum(1))
    assert np.isfinite(facts.scores(lambda x: x[:, 0], np.zeros_like, X, random, 200)).all()


def test_the_confusion_table_of_a_renamed_partition_is_diagonal(random):
    y = random.randint(0, 4, N)
    names = np.array([2, 0, 4, 1])
    counts = metrics.contingency(y, names[y], 6)
    order = facts.matched_order(counts)
    assert order[:4].tolist() == names.tolist()
    assert counts[:, order][:, :4].tolist() == np.diag(np.bincount(y)).tolist()
    assert sorted(order) == list(range(6))  # two of them without a row


def test_more_classes_than_clusters():
    assert sorted(facts.matched_order(np.array([[3, 0], [0, 2], [1, 0]]))) == [0, 1]


# ---- packing ----------------------------------------------------------------------------------------------------


def unpacked(packed):
    raw = gzip.decompress(base64.b64decode(packed["data"]))
    return json.loads(raw) if packed["kind"] == "json" else np.frombuffer(raw, packed["kind"].lower())


def test_packing_loses_nothing(random):
    for dtype in (np.uint8, np.uint16, np.uint32, np.float32):
        values = (100 * random.rand(50)).astype(dtype)
        np.testing.assert_array_equal(unpacked(pack.packed(values[::2])), values[::2])
    assert unpacked(pack.packed_json(["a<b", "ü"])) == ["a<b", "ü"]


def test_levels_are_exact_to_half_a_step_and_keep_what_is_missing(random):
    values = np.concatenate([1e4 + random.randn(1000), [np.nan]])
    packed = pack.levels(values)
    level = unpacked(packed)
    step = (packed["high"] - packed["low"]) / 65_534
    np.testing.assert_allclose(packed["low"] + step * level[:-1], values[:-1], atol=0.51 * step)
    assert (level == 65_535).tolist() == [False] * 1000 + [True]
    assert unpacked(pack.levels(np.full(3, 7.0))).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("two\n lines", "two lines"),
        ("a\u202eb\x00c", "a\ufffdb\ufffdc"),
        ("\ud800", "\ufffd"),
        ("<b>\N{SLIGHTLY SMILING FACE}", "<b>\N{SLIGHTLY SMILING FACE}"),
        (3.5, "3.5"),
    ],
)
def test_text_from_data_is_one_printable_line(given, shown):
    assert pack.tidy(given) == shown


def test_long_text_is_cut():
    assert pack.tidy("x" * 10_000) == "x" * 79 + "…"


def opened(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_every_image_stands_at_its_place(random):
    X = random.randint(0, 2, (100, 20)).astype(np.float32)
    made = pack.sheets(lambda part: X[part], 100, pack.Sheets((4, 5), (0.0, 1.0)), 10**6)
    whole = np.asarray(opened(made["urls"][0]).convert("L")) / 255
    assert (made["n"], made["height"], made["width"], made["columns"]) == (100, 4, 5, 64)
    for i in (0, 63, 64, 99):
        top, left = 4 * (i // 64), 5 * (i % 64)
        np.testing.assert_array_equal(whole[top : top + 4, left : left + 5].ravel(), X[i])


def test_images_keep_to_their_budget(random):
    X = random.rand(300, 32 * 32).astype(np.float32)
    draw = pack.Sheets((32, 32), (0.0, 1.0))
    whole = pack.sheets(lambda part: X[part], 300, draw, 10**7)
    small = pack.sheets(lambda part: X[part], 300, draw, 10_000)
    assert whole["n"] == 300
    assert whole["height"] == 32
    assert small["height"] == 16
    assert small["n"] < 300
    assert sum(map(len, small["urls"])) < 1.2 * 10_000


def test_the_palette_is_told_apart_with_every_color_blindness():
    """Colors seen by dichromats (Machado, Oliveira & Fernandes 2009, severity 1), compared in CIELAB."""
    script = (files("nvisa.report") / "templates" / "page.js").read_text()
    listed = re.search(r"const COLOURS = \[(.*?)\]", script)[1]
    colors = np.array([[int(name[i : i + 2], 16) for i in (0, 2, 4)] for name in re.findall(r"#(\w{6})", listed)]) / 255
    assert len(colors) == 10
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    sights = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
    just_noticeable = 2.3  # Mahy, Van Eycken & Oosterlinck 1994
    for sight in sights:
        seen = lab((linear @ np.array(sight).T).clip(0, 1))
        least = min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))
        assert least > 3 * just_noticeable


def lab(linear):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


# ---- maps and curves --------------------------------------------------------------------------------------------


def test_which_maps_are_drawn():
    assert maps.chosen_maps(("auto", "pca"), 100) == ["tsne", "pca"]
    assert maps.chosen_maps(("auto", "umap"), 10**5) == ["umap"]
    with pytest.raises(ValueError, match=r"maps: expected names among auto, .*, got 'mds'"):
        maps.chosen_maps(("mds",), 10)


@pytest.mark.parametrize("name", ["pca", "tsne"])
def test_a_map_keeps_groups_apart_and_is_repeatable(name, random):
    z = np.concatenate([random.randn(40, 5), 30 + random.randn(40, 5)])
    title, points = maps.plane(z, name, np.random.RandomState(0))
    first, second = points[:40], points[40:]
    gap = np.linalg.norm(first.mean(0) - second.mean(0))
    assert gap > 2 * max(np.linalg.norm(part - part.mean(0), axis=1).mean() for part in (first, second))
    assert title in ("PCA", "t-SNE")
    np.testing.assert_array_equal(maps.plane(z, name, np.random.RandomState(0))[1], points)


def test_two_dimensions_are_the_map(random):
    z = random.randn(20, 2)
    assert maps.plane(z, "umap", random)[1] is not None
    np.testing.assert_array_equal(maps.plane(z, "umap", random)[1], z)


def test_a_history_becomes_charts_with_its_stages():
    history = [{"stage": "pretraining", "epoch": 1, "seconds": 1.0, "objective": -1.0}]
    history += [{"stage": "training", "epoch": e, "seconds": 2.0, "bound": -e, "clusters_in_use": 3} for e in (1, 2)]
    drawn = {chart["title"]: chart for chart in curves.charts_of_history(history)}
    assert list(drawn) == ["Bound on log p(x)", "Clusters in use", "What was maximized"]
    assert drawn["Bound on log p(x)"]["series"] == [{"name": "bound", "x": [2, 3], "y": [-1, -2]}]
    assert drawn["Bound on log p(x)"]["marks"] == [{"x": 0.5, "text": "pretraining"}, {"x": 1.5, "text": "training"}]


def drawn_bound(model):
    """Of the joint training: the bound of each epoch, and the sum of the terms that are drawn beside it."""
    drawn = {chart["title"]: chart["series"] for chart in curves.charts_of_history(model.history_)}
    (bound,), terms = drawn["Bound on log p(x)"], drawn["What the bound is made of"]
    assert all(term["x"] == bound["x"] for term in terms)
    return np.array(bound["y"]), np.sum([term["y"] for term in terms], 0)


@pytest.mark.parametrize(
    "model",
    [GMVAE(2, init="random", **QUICK), LTVAE(2, **QUICK), VaDE(2, **QUICK), VAEGMM(2, **QUICK),
     NVISA(2, init="random", inference="nvil", **QUICK)],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
def test_the_terms_that_are_drawn_add_up_to_the_bound(model, rows):
    bound, total = drawn_bound(model.fit(rows))
    np.testing.assert_allclose(total, bound, rtol=1e-5)


def test_vimcos_bound_lies_above_its_terms_by_jensens_inequality(rows):
    bound, total = drawn_bound(NVISA(2, init="random", inference="vimco", **QUICK).fit(rows))
    assert (bound > total).all()


def test_every_part_of_the_consistency_is_drawn(rows):
    history = NVISA(2, init="random", consistency=("vat", "augment"), **QUICK).fit(rows).history_
    (drawn,) = [chart for chart in curves.charts_of_history(history) if chart["title"] == "Consistency of q(y|x)"]
    assert [line["y"] for line in drawn["series"]] == [[history[0][key]] for key in ("vat", "augment", "information")]


def test_the_clock_runs_on_when_a_stage_starts_anew():
    clock = ((1, 1.0), (2, 3.0), (1, 4.0), (2, 5.0), (1, 1.0))
    history = [{"epoch": epoch, "seconds": seconds} for epoch, seconds in clock]
    assert curves.running(history) == [1.0, 3.0, 7.0, 8.0, 9.0]


# ---- the page ---------------------------------------------------------------------------------------------------


def payload_of(path):
    return json.loads(re.search(r'id="payload">(.*?)</script>', path.read_text())[1])


def test_the_page_holds_what_the_clusterer_says(fitted, rows, tmp_path):
    path = fitted.report(rows, ["a"] * 30 + ["b"] * 30, out=tmp_path / "r.html", feature_shape=(4, 4), maps=("pca",))
    held = payload_of(path)
    np.testing.assert_array_equal(unpacked(held["cluster"]), fitted.predict(rows))
    np.testing.assert_array_equal(unpacked(held["second"]), np.argsort(fitted.predict_proba(rows))[:, -2])
    assert unpacked(held["label"]).tolist() == [0] * 30 + [1] * 30
    sheet = np.asarray(opened(held["sheets"]["urls"][0]).convert("L"))
    images = sheet.reshape(4, 64, 4).swapaxes(0, 1)[unpacked(held["place"])].reshape(60, 16)
    shades = 255 * (rows - rows.min()) / (rows.max() - rows.min())
    np.testing.assert_allclose(images, shades, atol=0.51)
    score = held["score"]
    values = score["low"] + (score["high"] - score["low"]) / 65_534 * unpacked(score)
    np.testing.assert_allclose(values, fitted.score_samples(rows), atol=(score["high"] - score["low"]) / 65_000)
    text = path.read_text()
    worst = int(fitted.score_samples(rows).argmin())
    assert re.search(r'id="anomalies">.*?data-row="(\d+)"', text, re.DOTALL)[1] == str(worst)


def test_the_same_page_is_the_same_file(fitted, rows, tmp_path):
    first, second = (write_report(fitted, rows, out=tmp_path / name, maps=("pca",)) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_page_without_rows(fitted, tmp_path):
    path = fitted.report(out=tmp_path / "r.html", feature_shape=(4, 4))
    assert "maps" not in payload_of(path)
    assert "training rows" in path.read_text()


def test_a_method_without_a_density(rows, tmp_path):
    path = AEGMM(2, **QUICK).fit(rows).report(rows, out=tmp_path / "r.html", maps=("pca",))
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


@pytest.mark.parametrize("kind", [NVISA, VaDE, VAEGMM])
def test_a_prototype_is_the_sample_of_a_cluster_without_spread(kind, rows):
    clusterer = kind(2, **QUICK, **({"init": "random"} if kind is NVISA else {})).fit(rows)
    table = dict(clusterer.module_.named_parameters()) | dict(clusterer.module_.named_buffers())
    (spread,) = (value for name, value in table.items() if name in ("prior.log_scale", "mixture.tril"))
    with torch.no_grad():
        spread.fill_(0.0 if kind is VAEGMM else -60.0)
    sampled = np.concatenate([clusterer.sample(1, cluster=k, noise=False)[0] for k in range(2)])
    np.testing.assert_allclose(clusterer.prototypes(), sampled, rtol=1e-5, atol=1e-6)


def test_a_cluster_of_several_gaussians_has_no_prototype(rows):
    two = Network(hidden=(8,), latent_dim=2, prior_components=2)
    assert NVISA(2, init="random", **QUICK | {"network": two}).fit(rows).prototypes() is None


# ---- the library -----------------------------------------------------------------------------------------------


def bundle():
    """A bundle as esbuild makes it: a core, a registered module for every kind of trace, and one that registers."""
    kinds = ("bar", "heatmap", *"abcdefg", "scattergl")
    text = "/* license */ var common=(e,t)=>()=>(t||e((t={exports:{}}).exports,t),t.exports),"
    text += "lazy=(e,t)=>()=>(e&&(t=e(e=0)),t);var core=common(e=>{e.draw=1});"
    text += 'var alone=common(e=>{});function help(){}var tail=lazy(()=>{"tail"});var shared=common(e=>{e.s=tail()});'
    for kind in kinds:
        uses = "shared();only_bar()" if kind == "bar" else "shared()"
        text += f'var of_{kind}=common((e,t)=>{{{uses};t.exports={{moduleType:"trace",name:"{kind}"}}}});'
        text += f"var lib_{kind}=common((e,t)=>{{t.exports=of_{kind}()}});"
    text += 'var only_bar=common(e=>{e.bar="only for bars"});'
    last = ",".join(f"lib_{kind}()" for kind in kinds)
    text += f"var all=common((e,t)=>{{var c=core();c.register([{last}]);t.exports=c}});"
    return f"{text}return all();}})();/* notes */"


def test_a_bundle_keeps_what_the_wanted_kinds_call_and_nothing_else():
    whole = bundle()
    short = library.trimmed(whole)
    for kept in (
        "/* license */",
        "var core=",
        "var shared=",
        "var tail=",
        "var of_heatmap=",
        "var of_scattergl=",
        "/* notes */",
    ):
        assert kept in short
    for left in ("var of_bar=", "var lib_a=", "only for bars", "lib_bar()"):
        assert left not in short
    assert "register([lib_heatmap(),lib_scattergl()])" in short
    assert library.trimmed(short) == short  # there is no long list any more


@pytest.mark.parametrize(
    "other",
    [
        bundle().replace("scattergl", "dots"),
        bundle().replace("{exports:{}}", "{}"),
        bundle().replace("register([", "add(["),
        "window.Plotly = {};",
        "",
    ],
    ids=["another kind", "another wrapper", "another list", "no bundle", "empty"],
)
def test_a_bundle_of_another_making_stays_as_it_is(other):
    assert library.trimmed(other) == other


def test_the_installed_library_is_a_third_and_calls_nothing_that_was_left_out():
    from plotly.offline import get_plotlyjs

    whole, short = get_plotlyjs(), library.plotly_js()
    assert len(short) < 0.4 * len(whole)
    assert "Licensed under the MIT license" in short
    common = library.COMMON.search(whole)[1]
    modules = set(re.findall(rf"var ([\w$]+)={re.escape(common)}\(", whole))
    left_out = modules - set(re.findall(rf"var ([\w$]+)={re.escape(common)}\(", short))
    assert len(left_out) > 300
    assert left_out.isdisjoint(library.CALL.findall(short))


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page_that_python_writes(fitted, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fitted.save("model", extra={"feature_shape": (4, 4)})
    np.savez("rows.npz", X=rows, y=np.repeat(["a", "b"], 30))
    assert cli.main(["report", "model", "--data", "rows.npz", "--maps", "pca", "--out", "r.html", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"out": "r.html", "n_bytes": (tmp_path / "r.html").stat().st_size}
    held = payload_of(tmp_path / "r.html")
    np.testing.assert_array_equal(unpacked(held["cluster"]), fitted.predict(rows.astype(np.float32)))
    assert held["classes"] == ["a", "b"]
    assert "sheets" in held  # the model knows that its rows are images
    assert "report model --out r.html --data rows.npz --maps pca" in (tmp_path / "r.html").read_text()
    assert cli.main(["report", "model", "--out", "bare.html"]) == 0
    assert "maps" not in payload_of(tmp_path / "bare.html")


def test_the_command_says_what_it_cannot_do(fitted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fitted.save("model")
    Path("0.json").write_text('{"recipe": "default", "dataset": "digits", "seed": 0, "status": "crashed"}')
    for argv, message in (
        (["model", "--out", "r.pdf"], "expected a name ending in .html"),
        (["nowhere"], "nowhere"),
        (["0.json", "--data", "rows.npz"], "expected one model directory with --data"),
    ):
        assert cli.main(["report", *argv]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["report", "0.json", "--out", "records.html"]) == 0
    assert not (tmp_path / "report.html").exists()


def test_the_docs_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1], names)
    assert payload_of(names["path"])["n"] == 178
