"""What every test gets: one torch thread, its own generator, a check that nobody drew from a global one."""

import signal
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from nvisa.maths.products import PRECISION

torch.set_num_threads(1)  # one a worker: two workers share two cores, and sums keep their order
PRECISION.set("float32")  # the same numbers on every processor; rounded factors have tests of their own

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts background jobs so; tests send it to themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline measures the machine, not the code; the same examples on every run make a red CI repeatable.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("house")


@pytest.fixture
def rng() -> torch.Generator:
    """A generator of the test's own, always with the same seed."""
    return torch.Generator().manual_seed(20200719)


@pytest.fixture(autouse=True)
def _global_generators_untouched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that moved a global generator: library code draws from the one it was given."""
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    yield
    if request.node.get_closest_marker("global_rng"):
        return
    numpy_after = np.random.get_state()  # noqa: NPY002
    moved = {
        "torch": not torch.equal(torch_before, torch.get_rng_state()),
        "numpy": numpy_before[2:] != numpy_after[2:] or not np.array_equal(numpy_before[1], numpy_after[1]),
    }
    names = " and ".join(name for name, has_moved in moved.items() if has_moved)
    assert not names, f"the test moved the global generator of {names}: pass a generator instead"


@pytest.fixture
def one_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What documents run, made short: one epoch of training, and one of the graph's layout."""
    from nvisa.fitting.layout import graph_layout  # not above: shapes are checked in what is imported after this file

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nvisa.fitting.training.Training.n_epochs", lambda *_: 1)
    monkeypatch.setattr("nvisa.fitting.initialization.graph_layout", partial(graph_layout, n_epochs=1))
    with warnings.catch_warnings():
        # One epoch may end in few clusters, on pixels that are always dark, or worse than k-means: each is tested where
        # it is written.
        warnings.filterwarnings("ignore", ".*(clusters are in use|columns are constant|label-free criteria prefer)")
        yield
