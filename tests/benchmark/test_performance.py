"""What nvisa is timed against computes the same, and the products that the benchmark counts are those of a step."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from nvisa.benchmark import performance
from nvisa.benchmark.performance import cell, table
from nvisa.benchmark.tables import SPEED
from nvisa.maths.schedules import Constant
from nvisa.methods.nvisa import Bound
from nvisa.nets.layers import Network
from nvisa.nets.mixture_vae import MixtureVAE, draw
from nvisa.nets.units import Rescale
from oracles import build, gradients, normal

FOLDER = Path(__file__).parents[2] / "benchmarks" / "perf"


def load(name):
    spec = importlib.util.spec_from_file_location(f"perf_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


M, B, K, D, Z, HIDDEN = 5, 4, 3, 40, 2, (7, 6)


@pytest.fixture
def net(rng):
    rescale = Rescale(torch.zeros(D), torch.ones(D))
    network = Network(hidden=HIDDEN, latent_dim=Z, batch_norm=False)
    return build(lambda: MixtureVAE(rescale, K, network, likelihood="gaussian_shared", posterior="joint"), rng)


def shared(net, plain):
    """Every parameter of ours beside the same entries of theirs."""
    embedding = plain.z_hidden.weight.shape[1] - K
    return [
        *zip(net.trunk.parameters(), plain.trunk.parameters(), strict=True),
        *zip(net.decoder.parameters(), plain.decoder.parameters(), strict=True),
        (net.y_logits.weight, plain.y_logits.weight),
        (net.z_head.loc.weight, plain.z_loc.weight),
        (net.z_head.raw_scale.bias, plain.z_raw_scale.bias),
        (net.x_head.loc.weight, plain.x_loc.weight),
        (net.x_head.loc.bias, plain.x_loc.bias),
        (net.x_head.raw_scale, plain.x_raw_scale),
        (net.prior.loc, plain.prior_loc),
        (net.prior.log_scale, plain.prior_log_scale),
    ], embedding


@pytest.mark.parametrize("tiled", [False, True])
def test_the_common_form_has_our_bound_and_our_gradients(rng, net, tiled):
    """The same weights and the same draws, in float64: what is compared in docs/performance.md is one computation."""
    plain = build(lambda: load("plain").Plain(D, K, HIDDEN, Z), rng)
    plain.load(net)
    x = normal(rng, B, D)
    h = net.trunk(x)
    state = rng.get_state()
    drawn = draw(net, h, net.log_q_y_from(h), 0.2, n_samples=M, reparameterize=False, generator=rng)
    rng.set_state(state)
    ours = Bound(net, "vimco", M, False, Constant(0.4), Constant(0.2), rng)
    bound, _ = ours.bound(x, h, net.log_q_y_from(h), 0.0)
    theirs = plain.vimco(x, M, 0.4, 0.2, drawn=(drawn.y, drawn.z), tiled=tiled)
    assert_close(bound, theirs, rtol=1e-8, atol=1e-8)
    upstream = normal(rng, B)
    pairs, n_hidden = shared(net, plain)
    mine = gradients((upstream * bound).sum(), [a for a, _ in pairs] + [net.z_base.weight, net.y_embedding.weight])
    other = gradients((upstream * theirs).sum(), [b for _, b in pairs] + [plain.z_hidden.weight])
    for a, b in zip(mine[:-2], other[:-1], strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-8)
    assert_close(mine[-2], other[-1][:, :n_hidden], rtol=1e-8, atol=1e-8)
    assert_close(mine[-1], other[-1][:, n_hidden:].T, rtol=1e-8, atol=1e-8)


def test_the_products_of_a_linear_layer_forward_and_backward_are_counted(rng):
    flops = load("common").flops
    layer, x = build(lambda: torch.nn.Linear(3, 5), rng), torch.ones(7, 3, requires_grad=True, dtype=torch.float64)
    assert flops(lambda: layer(x).sum().backward()) == 3 * 2 * 7 * 3 * 5  # y, the weight's gradient, x's gradient
    total = torch.zeros(5, 3, dtype=torch.float64)
    assert flops(lambda: total.addmm_(torch.ones(7, 5, dtype=total.dtype).T, x.detach())) == 2 * 7 * 3 * 5


@pytest.mark.parametrize("document", SPEED)
def test_the_document_holds_what_the_records_say(document):
    text = (FOLDER.parents[1] / document).read_text()
    records = performance.load_records(FOLDER.parents[1] / "benchmarks/records/performance")
    assert performance.rewrite(text, records) == text, "run `make table`"


def test_a_cell_is_the_median_with_its_range():
    assert cell([3.0, 1.0, 2.0]) == "2 (1-3)"
    assert cell(1234567) == "1,234,567"
    assert cell(0.123456) == "0.123"
    assert cell("-") == "-"


def test_sizes_of_one_section_share_a_table_in_their_order():
    machine = {"threads": 1, "clock": "process_time", "cpu": "C"}
    records = [
        {"section": f"rows_{n}", "rows": [{"rows": n}], "note": "N.", "machine": machine,
         "versions": {"torch": "2"}} for n in (10_000, 1000)
    ]  # fmt: skip
    text = table("rows", [*records, {"section": "step"}])
    assert text.index("| 1,000 |") < text.index("| 10,000 |")
    assert text.endswith("N. 1 thread, processor time, torch 2.")
    assert table("step", records) == "No record yet; `make perf` makes them."


def test_sections_of_several_seeds_end_with_their_median():
    machine = {"threads": 2, "clock": "perf_counter", "cpu": "C"}
    records = [
        {"section": f"time_to_{seed}", "rows": [{"seed": seed, "s": 10.0 * seed, "goal": goal}], "note": "N.",
         "machine": machine, "versions": {"torch": "2"}, "median": True} for seed, goal in enumerate([3.0, "-", 5.0])
    ]  # fmt: skip
    lines = table("time_to", records).splitlines()
    assert [line for line in lines if "median" in line] == ["| median | 10 |  |"]
    assert "median" not in table("time_to", [{**record, "median": False} for record in records])
