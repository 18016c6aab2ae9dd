"""The report page in headless Chromium, opened from disk: it draws, answers, exports, and runs nothing of the data's.

A machine without the browser skips these; CI sets NVISA_REQUIRE_BROWSER=1 and fails instead.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nvisa import NVISA, Network, Training
from nvisa import data as datasets
from nvisa.benchmark.page import write_records_report
from nvisa.report import write_report
from nvisa.report.encoding import one_line

pandas = pytest.importorskip("pandas")
pytest.importorskip("plotly")
pytest.importorskip("PIL")

pytestmark = pytest.mark.filterwarnings("ignore:.*columns are constant")  # corners that no pen reaches

REAL_HOME = Path(os.environ.get("NVISA_DATA_HOME") or Path(__file__).parents[3] / "shared" / "data")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
FLAGS += ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a GPU
QUICK = {"init": "random", "consistency": None, "random_state": 0}
SMALL = {"network": Network(hidden=(8,), latent_dim=2), "training": Training(epochs=2)}


@pytest.fixture(scope="module")
def browser():
    required = os.environ.get("NVISA_REQUIRE_BROWSER") == "1"
    if CHROMIUM is None and not required:
        pytest.skip("no Chromium here (Debian: apt-get install chromium); NVISA_REQUIRE_BROWSER=1 makes this a failure")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visit(browser):
    """Open a page from disk; at the end, nothing was complained of and nothing asked of a network."""
    complaints, requests, contexts = [], [], []

    def opened(path, width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=90_000)
        return page

    yield opened
    outside = [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    loaded = [url for url in requests if url.startswith("file:")]
    for context in contexts:
        context.close()
    assert complaints == []
    assert outside == []
    assert len(loaded) == len(contexts)  # the page itself, and no file beside it


@pytest.fixture(scope="module")
def digits_page(tmp_path_factory):
    digits = datasets.load("digits")
    model = NVISA(10, **QUICK, **SMALL).fit(digits.X_train[:500])
    path = tmp_path_factory.mktemp("page") / "digits.html"
    names = [f"digit-{i}.png" for i in range(500)]
    options = {"feature_shape": (8, 8), "maps": ("pca",), "names": names, "about": {"source": "digits"}}
    return write_report(model, digits.X_train[:500], digits.y_train[:500], out=path, **options), model


def place(page, i):
    """Where point i is drawn, in the window."""
    return page.evaluate(
        """(i) => {
            const plot = document.getElementById("plot"), box = plot.getBoundingClientRect(), full = plot._fullLayout;
            const { x, y } = payload.maps[map.plane], { xaxis, yaxis } = full;
            return [box.left + xaxis._offset + xaxis.d2p(x[i]), box.top + yaxis._offset + yaxis.d2p(y[i])];
        }""",
        i,
    )


def selected(page):
    return page.evaluate("map.selected")


def colors(page):
    """How many distinct colors the plot's WebGL canvas shows."""
    from PIL import Image

    page.locator("#plot").screenshot(path="plot.png")
    with Image.open("plot.png") as image:
        return len(image.convert("RGB").quantize(64).getcolors())


def test_the_map_draws_and_answers(visit, digits_page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, model = digits_page
    labels = model.labels_
    page = visit(path)
    page.locator("#map").scroll_into_view_if_needed()
    assert colors(page) > 10
    assert page.evaluate("Object.keys(Plotly.PlotSchema.get().traces).sort()") == ["heatmap", "scatter", "scattergl"]

    # Hovering shows the row under the mouse: its image, its name, its cluster.
    page.evaluate("scrollTo({top: document.getElementById('map').offsetTop - 60, behavior: 'instant'})")
    page.mouse.move(*place(page, 7))
    page.wait_for_selector("#card canvas[data-row]")
    row = int(page.locator("#card canvas").get_attribute("data-row"))
    x, y = place(page, row)
    wanted = place(page, 7)
    assert np.hypot(x - wanted[0], y - wanted[1]) < 20  # another point may lie on top
    assert f"digit-{row}.png" in page.locator("#card").inner_text()
    drawn = page.evaluate(
        "Array.from(document.querySelector('#card canvas').getContext('2d').getImageData(0,0,8,8).data)"
    )
    ink = 255 * datasets.load("digits").X_train[row]
    np.testing.assert_allclose(np.reshape(drawn, (64, 4))[:, 0], ink, atol=1.0)

    # A cluster can be chosen, by the mouse and by the keyboard.
    page.locator('#legend button[data-g="1"]').click()
    assert selected(page) == np.flatnonzero(labels == 1).tolist()
    page.locator('#legend button[data-g="1"]').press("Enter")
    assert selected(page) is None

    # The lasso selects what it encloses, and the export holds these rows.
    box = page.locator("#plot").bounding_box()
    left, top = box["x"] + box["width"] * 0.25, box["y"] + 12
    right, bottom = box["x"] + box["width"] * 0.6, box["y"] + box["height"] - 12
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 2)):
        page.mouse.move(x, y, steps=6)
    page.mouse.up()
    page.wait_for_selector("#export")
    inside = [i for i in range(500) if left + 3 < place(page, i)[0] < right - 3 and top < place(page, i)[1] < bottom]
    near = [i for i in range(500) if left - 3 < place(page, i)[0] < right + 3]
    assert inside
    assert set(inside) <= set(selected(page)) <= set(near)
    with page.expect_download() as download:
        page.locator("#export").click()
    table = pandas.read_csv(download.value.path())
    assert table["row"].tolist() == selected(page)
    assert table["cluster"].tolist() == labels[table["row"]].tolist()
    assert table["name"].tolist() == [f"digit-{row}.png" for row in table["row"]]

    # Clearing takes the lasso's outline away, too, and a second lasso starts from nothing.
    outlines = "document.querySelectorAll('#plot .selectionlayer path').length"
    assert page.evaluate(outlines) > 0
    page.locator("#clear").click()
    assert selected(page) is None
    assert page.evaluate(outlines) == 0
    assert page.evaluate("document.getElementById('plot').data.every((part) => !part.selectedpoints)")

    # Colors, themes, rows by number, cells of the table of confusions.
    for way in ("confidence", "score", "label", "cluster"):
        page.locator("#color").select_option(way)
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("#row").fill("123")
    page.locator("#row").press("Enter")
    assert page.locator("#card canvas").get_attribute("aria-label") == "row 123"
    cell = page.locator(".cell").first
    kind, k, n = (
        int(value) for value in (cell.get_attribute("data-class"), cell.get_attribute("data-k"), cell.inner_text())
    )
    cell.click()
    found = np.flatnonzero((datasets.load("digits").y_train[:500] == kind) & (labels == k))
    assert selected(page) == found.tolist()
    assert len(found) == n


def test_the_page_fits_a_phone(visit, digits_page):
    page = visit(digits_page[0], width=390, height=844, has_touch=True, is_mobile=True, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("#map").scroll_into_view_if_needed()
    for section in page.locator("section").all():
        section.scroll_into_view_if_needed()  # which draws its charts
    page.wait_for_selector("#charts .main-svg")


HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '"><svg onload=window.hacked=1>',
    "{{ 7 * 7 }}{% raw %}",
    "<b>bold</b><a href='javascript:window.hacked=1'>link</a>",
    "\N{GRINNING FACE}\N{ZERO WIDTH JOINER}\u202etxet desrever \x00",
    "x" * 10_000,
    "&lt;i&gt; ]]> <!-- -->",
]


def test_hostile_data_neither_break_the_page_nor_run(visit, tmp_path):
    random = np.random.RandomState(0)
    X = np.concatenate([random.randn(30, len(HOSTILE)) + 4 * k for k in range(3)])
    frame = pandas.DataFrame(X, columns=HOSTILE)
    model = NVISA(3, **QUICK, **SMALL).fit(frame)
    about = {"source": HOSTILE[1], "command": HOSTILE[2], "model": HOSTILE[7]}
    labels, names = np.array(HOSTILE)[np.arange(90) % 9], np.array(HOSTILE)[np.arange(90) % 7]
    page = visit(write_report(model, frame, labels, out=tmp_path / "r.html", names=names, maps=("pca",), about=about))
    for section in page.locator("section").all():
        section.scroll_into_view_if_needed()
    page.wait_for_selector("#heat .main-svg")
    page.locator("#color").select_option("label")
    for row in range(0, 9):
        page.evaluate("(row) => pin(row)", row)
    shown = page.locator("#anomalies .name").first.inner_text()
    assert shown in [one_line(name) for name in np.array(HOSTILE)]
    exported = page.evaluate("""["=1+1", '-a"b', "-1.5", "@x", "plain, 7"].map(cell)""")
    assert exported == [
        '"\'=1+1"',
        '"\'-a""b"',
        '"-1.5"',
        '"\'@x"',
        '"plain, 7"',
    ]  # no spreadsheet takes one for a formula
    assert page.evaluate("window.hacked") is None
    assert page.locator("main script, main img, main svg[onload], main a[href^=javascript]").count() == 0
    assert "<script>window" in page.locator(".apart").first.inner_text()
    drawn = page.locator("#heat").text_content()  # by plotly, which reads a few tags in text
    assert "<script>window." in drawn
    assert "<b>bold</b><a h" in drawn
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert "<script>window.hacked = 1</script>" in page.locator("#legend").inner_text()


def test_the_page_of_records(visit, tmp_path):
    metrics = {"train": {"accuracy": 0.5, "nmi": 0.5, "ari": 0.5}}
    (tmp_path / "a.json").write_text(
        '{"recipe": "<script>window.hacked=1</script>", "dataset": "digits", "seed": 0, "status": "ok", "seconds": 1.0,'
        ' "method": "nvisa", "params": {}, "versions": {},'
        f' "metrics": {metrics!r}'.replace("'", '"')
        + ', "history": [{"bound": 1.0}, {"bound": 2.0}]}'
    )
    page = visit(write_records_report([tmp_path], out=tmp_path / "r.html"))
    page.locator("#charts").scroll_into_view_if_needed()
    page.wait_for_selector("#charts .main-svg")
    assert page.evaluate("window.hacked") is None
    assert "<script>" in page.locator("#data-1").inner_text()


def seventy_thousand():
    """MNIST where it is; else handwritten digits of 8 x 8, three times as large, on 28 x 28."""
    random = np.random.RandomState(0)
    try:
        mnist = datasets.load("mnist", data_home=REAL_HOME)
        return np.concatenate([mnist.X_train, mnist.X_test]), np.concatenate([mnist.y_train, mnist.y_test])
    except datasets.DataError:
        digits = datasets.load("digits").X_train.reshape(-1, 8, 8)
    stamps = np.pad(np.kron(digits, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2))).reshape(-1, 784).astype(np.float32)
    X = stamps[random.randint(len(stamps), size=70_000)]
    X += 0.1 * random.rand(*X.shape).astype(np.float32)
    return X, random.randint(0, 10, 70_000)


@pytest.mark.slow
def test_seventy_thousand_images(visit, tmp_path, monkeypatch):
    """A page of MNIST's size: within 8 MB, the map draws, and the image of the row under the mouse is there.

    How long it takes to open is a record (docs/report.md), not a condition here: CI's machine is shared.
    """
    monkeypatch.chdir(tmp_path)
    X, y = seventy_thousand()
    model = NVISA(10, **QUICK, network=Network(hidden=(32,), latent_dim=4), training=Training(epochs=3)).fit(X[:4000])
    path = write_report(model, X, y, out=tmp_path / "r.html", feature_shape=(28, 28), maps=("pca",))
    assert path.stat().st_size < 8_000_000
    page = visit(path)
    parts = page.evaluate("document.getElementById('plot').data.map((part) => part.x.length)")
    assert sum(parts) == 70_000
    labels = model.predict(X)
    assert parts == [n for n in np.bincount(labels, minlength=10).tolist() if n]  # a part for each of ten colors
    page.evaluate("scrollTo({top: document.getElementById('map').offsetTop - 60, behavior: 'instant'})")
    assert colors(page) > 10
    page.mouse.move(*place(page, 69_999))
    page.wait_for_selector("#card canvas[data-row]")
    page.locator('#legend button[data-g="0"]').click()
    assert selected(page) == np.flatnonzero(labels == 0).tolist()
    page.locator("#color").select_option("confidence")
    assert page.evaluate("document.getElementById('plot').data.length") == 1
    assert colors(page) > 10
