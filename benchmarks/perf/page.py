"""A report page: how long one of 70,000 rows takes to open, in headless Chromium on one core, and its maps to make."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import clock, noise, write
from numpy.random import RandomState

from nvisa import NVISA, Network, Training, write_report
from nvisa import data as datasets
from nvisa.report.maps import TSNE_ROWS, plane

REPEATS = 5
N_ROWS = 70_000
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
TICKS = os.sysconf("SC_CLK_TCK")


def page() -> None:
    """(f) Opening a report page, from disk to a map that answers."""
    from playwright.sync_api import sync_playwright

    mnist = datasets.load("mnist")
    images, labels = np.concatenate([mnist.X_train, mnist.X_test]), np.concatenate([mnist.y_train, mnist.y_test])
    kinds: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "MNIST, 70,000 images of 28 x 28": (images, {"y": labels, "feature_shape": (28, 28)}),
        "a table, 70,000 x 20": (noise(N_ROWS, 20), {}),
    }
    rows = []
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # playwright and the browser inherit it
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        for name, (X, options) in kinds.items():
            path = _written(X, Path(folder) / "page.html", options)
            opened = [_opened(playwright, path) for _ in range(REPEATS)]
            rows.append({"page": name, "MB": path.stat().st_size / 1e6} | {
                column: [run[column] for run in opened] for column in opened[0] if column != "browser"
            })  # fmt: skip
    os.sched_setaffinity(0, cores)
    note = f"Chromium {opened[0]['browser']}, headless, WebGL in software, all of it on one core; playwright drives it."
    write("page", rows, note, clock_of="perf_counter")


def maps() -> None:
    """(g) The maps of a page: latent vectors of ten dimensions in the plane."""
    rows = []
    for n, names in ((TSNE_ROWS, ("pca", "tsne", "umap")), (N_ROWS, ("pca", "umap"))):
        z, row = noise(n, 10), {"rows": n}
        for name in names:
            started = clock()
            title, _ = plane(z, name, RandomState(0))
            row[f"{title}, s"] = clock() - started
        rows.append(row)
    write("maps", rows, "z around 20 centers in ten dimensions.")


def _written(X: np.ndarray, path: Path, options: dict[str, Any]) -> Path:
    """The page of a quick fit: what it shows does not change what it takes to show it."""
    network, training = Network(hidden=(32,), latent_dim=4), Training(epochs=3)
    settings: dict[str, Any] = {"init": "random", "consistency": None, "random_state": 0}
    model = NVISA(10, network=network, training=training, **settings).fit(X[:4000])
    return write_report(model, X, out=path, maps=("pca",), **options)


def _opened(playwright: Any, path: Path) -> dict[str, Any]:
    """Open the page in a new browser."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    before = _spent()
    tab.goto(path.as_uri(), wait_until="commit")
    tab.wait_for_function("document.documentElement.dataset.ready", timeout=120_000, polling=100)
    spent = _spent() - before
    drawn = tab.evaluate("+document.documentElement.dataset.ready")
    tab.evaluate("scrollTo({top: document.getElementById('map').offsetTop - 60, behavior: 'instant'})")
    box = tab.locator("#plot").bounding_box()
    started = time.perf_counter()
    for step in range(40):  # until the mouse is over a point
        tab.mouse.move(box["x"] + box["width"] / 2 + step, box["y"] + box["height"] / 2)
        if tab.locator("#card dl").count():
            break
    answered = time.perf_counter() - started
    found = {
        "s to the drawn map": drawn / 1e3,
        "processor s, all processes": spent,
        "then s to answer the mouse": answered,
    }
    found["browser"] = browser.version
    browser.close()
    return found


def _spent() -> float:
    """Processor seconds of this process's descendants so far (Linux)."""
    parents, spent = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(file.parent.name)] = int(fields[1])
        spent[int(file.parent.name)] = (int(fields[11]) + int(fields[12])) / TICKS

    def ours(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == os.getpid():
                return True
        return False

    return sum(seconds for process, seconds in spent.items() if ours(process))
