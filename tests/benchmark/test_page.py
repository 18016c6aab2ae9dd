"""The page of records: its numbers stand beside the slides', and models give their samples."""

import base64
import io
import json
import re

import numpy as np
import pytest

from benchmark.made_records import record
from nvisa import NVISA
from nvisa.benchmark.page import read_records, write_records_report
from nvisa.fitting.training import Training
from nvisa.nets.layers import Network
from nvisa.report.pictures import brightness

pytest.importorskip("plotly")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def fitted():
    rows = np.concatenate([np.random.RandomState(2).rand(30, 16) + shift for shift in (0, 2)])
    quick = {"network": Network(hidden=(8,), latent_dim=3), "training": Training(epochs=1), "random_state": 0}
    return NVISA(2, init="random", consistency=None, **quick).fit(rows)


def charts_of(page):
    return json.loads(re.search(r'id="payload">(.*?)</script>', page.read_text())[1])["charts"]


def write_json(folder, *made):
    for i, one in enumerate(made):
        (folder / f"{i}.json").write_text(json.dumps(one))
    return folder


def test_a_page_of_records_stands_beside_the_slides(tmp_path):
    better = record(seed=1, metrics={"test": {"accuracy": 0.7, "nmi": 0.5, "ari": 0.3}})
    curve = [{"elapsed": 1.0, "accuracy": 0.2}, {"elapsed": 1.5, "accuracy": 0.4}]
    short = record(recipe="ablation/enum_y", curve=curve, status="diverged", metrics={}, start={"seconds": 2.0})
    alone = record(recipe="paper/random", history=[])
    started = record(recipe="ablation/vimco_annealed_gmm", history=[])
    base = record(history=[{"bound": -2.0}])
    write_json(tmp_path, base, better, short, alone, started, {"kind": "performance"})
    path = write_records_report([tmp_path], out=tmp_path / "r.html")
    text = path.read_text()
    assert "60.00 ± 14.14" in text
    assert text.count("96.55±2.64") == 1  # beside the slides' method, and not beside the default
    assert "NVISA (paper), random start" in text
    assert "78.43" in text  # EnumY in the slides' ablation
    assert "98.04±0.17" in text  # the start from AE+GMM, which they print beside it
    time, bound = charts_of(path)
    assert time["series"][0] == {"name": "ablation/enum_y, seed 0", "x": [3.0, 3.5], "y": [20.0, 40.0]}
    assert time["series"][2]["y"] == [50.0, 70.0]
    assert bound["series"][0]["y"] == [-2.0]


def test_models_beside_the_records_give_their_samples(fitted, tmp_path):
    write_json(tmp_path, record())
    fitted.save(tmp_path / "models" / "of <images>", extra={"feature_shape": (4, 4)})
    fitted.save(tmp_path / "models" / "of a table")
    text = write_records_report([tmp_path], out=tmp_path / "r.html").read_text()
    (url,) = re.findall(r'<img src="data:image/webp;base64,([^"]+)"', text)
    assert "samples of of &lt;images&gt;" in text
    with Image.open(io.BytesIO(base64.b64decode(url))) as image:
        assert image.size == (8 * 6, 2 * 6)  # eight samples across, a line a cluster, a dark line around each
        pixels = np.asarray(image.convert("L"), dtype=float) / 255
    rows = np.concatenate([fitted.sample(8, cluster=k, noise=False, random_state=k)[0] for k in range(2)])
    low, high = brightness(rows)
    framed = np.pad(((rows - low) / (high - low)).clip(0, 1).reshape(2, 8, 4, 4), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = framed.transpose(0, 2, 1, 3).reshape(12, 48)
    np.testing.assert_allclose(pixels, expected, atol=1 / 255)


def test_a_page_of_no_runs_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"kind": "performance"}')
    with pytest.raises(ValueError, match="expected records of runs, got none"):
        read_records([tmp_path])
    with pytest.raises(ValueError, match="expected records or a model directory, got nothing"):
        read_records([tmp_path / "none"])
