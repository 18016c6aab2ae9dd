"""What a fit is handed, and who tells of its epochs."""

import numpy as np
import torch
from torch import nn

from nvisa.fitting.run import Reporter
from nvisa.fitting.training import StepOutput, Training, maximize
from nvisa.nets.rows import Source
from oracles import build


def test_a_reporter_hands_on_the_networks_it_was_given_with_every_record(rng):
    net, shown, seen = build(lambda: nn.Linear(2, 1), rng).float(), nn.Identity(), []

    def look(module, records):
        seen.append((module, dict(records[-1])))
        return False

    history = maximize(
        lambda x, rows, fraction: StepOutput(net(x).squeeze(1), {}), net, Source(np.ones((4, 2), np.float32)),
        Training(epochs=2), torch.Generator(), [Reporter(shown, look)],
    )  # fmt: skip
    assert [(module is shown, record) for module, record in seen] == [(True, record) for record in history]
