"""The page of records: beside the slides' cells, with samples of the models beside the records."""

import base64
import io
import json
import re

import numpy as np
import pytest

from nvisa.benchmark import page as records
from nvisa.benchmark.page import write_records_report
from nvisa.report.pictures import brightness
from report_pages import fitted_to, payload_of, two_groups

pytest.importorskip("plotly")


Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def fitted():
    return fitted_to(two_groups())


def record(**changes):
    metrics = {"accuracy": 0.5, "purity": 0.5, "nmi": 0.25, "ari": 0.1}
    base = {"recipe": "default", "method": "nvisa", "dataset": "mnist", "seed": 0, "status": "ok", "seconds": 10.0}
    return base | {"metrics": {"test": metrics}, "history": [{"bound": -2.0}]} | changes


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
    write_json(tmp_path, record(), better, short, alone, started, {"kind": "performance"})
    path = write_records_report([tmp_path], out=tmp_path / "r.html")
    text = path.read_text()
    assert "60.00 ± 14.14" in text
    assert text.count("96.55±2.64") == 1  # beside the bound alone, and not beside the default
    assert "78.43" in text  # EnumY in the slides' ablation
    assert "98.04±0.17" in text  # the start from AE+GMM, which they print beside it
    time, bound = payload_of(path)["charts"]
    assert time["series"][0] == {"name": "ablation/enum_y, seed 0", "x": [3.0, 3.5], "y": [20.0, 40.0]}
    assert time["series"][3]["y"] == [50.0, 70.0]
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


def test_what_is_no_record_is_refused(tmp_path):
    for text, message in (("{", "in JSON"), ("[]", "other JSON"), ('{"recipe": 1}', "other JSON")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            records.read_records([tmp_path])
    (tmp_path / "x.json").write_text('{"kind": "performance"}')
    with pytest.raises(ValueError, match="expected records of runs, got none"):
        records.read_records([tmp_path])
