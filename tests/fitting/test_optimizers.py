"""Steps are torch's own, bit for bit, and no fit imports torch's compiler."""

import subprocess
import sys

import pytest
import torch

from nvisa.fitting import optimizers

FIT = """
import sys
import tempfile
from sklearn.datasets import load_iris
from nvisa import NVISA, Training
with tempfile.TemporaryDirectory() as folder:
    short = NVISA(3, training=Training(steps=8, min_steps=8), random_state=0)
    short.fit(load_iris().data, checkpoint=folder + "/state")
print("torch._dynamo" in sys.modules)
print("sympy" in sys.modules)
"""


def minimum(kind, start, n_steps, **settings):
    """Where these steps down Rosenbrock's valley lead, through a state that is written and read half way."""
    x = start.clone().requires_grad_()
    optimizer = kind([x], **settings)

    def loss():
        optimizer.zero_grad()
        value = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        value.backward()
        return value

    for _ in range(n_steps):
        optimizer.step(loss)
    other = kind([x], **settings)
    other.load_state_dict(optimizer.state_dict())
    optimizer = other
    optimizer.step(loss)
    assert x.requires_grad
    return x.detach()


@pytest.mark.parametrize(
    ("name", "settings"), [("Adam", {"lr": 0.05, "fused": True}), ("LBFGS", {"line_search_fn": "strong_wolfe"})]
)
def test_every_step_is_that_of_torch(name, settings):
    start = torch.tensor([-1.0, 1.5])
    ours, theirs = (minimum(getattr(of, name), start, 7, **settings) for of in (optimizers, torch.optim))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, start)


def test_a_fit_with_a_checkpoint_does_not_import_the_compiler():
    printed = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=True).stdout
    assert printed == "False\nFalse\n"
