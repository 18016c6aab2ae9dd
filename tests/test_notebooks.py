"""The notebooks run from their first cell to their last, with an epoch of training, and hold no outputs."""

import json
from pathlib import Path

import pytest

pytest.importorskip("pandas")
NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def code_of(path):
    """The code cells of a notebook."""
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def plots(one_epoch):
    """Figures are drawn into memory."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


@pytest.mark.usefixtures("plots")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook):
    if notebook.stem == "images":
        pytest.importorskip("plotly")  # the report
    names: dict[str, object] = {}
    for cell in code_of(notebook):
        exec("".join(cell["source"]), names)
    assert len(names["X"]) == len(names["model"].labels_)


def test_there_are_three_and_none_holds_outputs_or_numbers_of_a_run():
    assert [path.stem for path in NOTEBOOKS] == ["embeddings", "images", "table"]
    for path in NOTEBOOKS:
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code_of(path)), path.stem
        assert "Training(epochs=" in path.read_text(), "it says how it is kept short"
