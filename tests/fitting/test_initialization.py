"""What a start hands over to training: its codes, its assignment, and how a warm one keeps them."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch.testing import assert_close

from nvisa import AEGMM, GMVAE, NVISA
from nvisa.fitting import initialization
from nvisa.fitting.config import config
from nvisa.fitting.initialization import (
    BoundBesideStart,
    Start,
    WarmStart,
    bound_with_fixed_q_y,
    codes_of,
    distill,
    find_start,
    pretrain,
    reconstruction_error,
    refit_head,
    warm_start,
)
from nvisa.fitting.run import Listener
from nvisa.fitting.training import Training
from nvisa.maths.schedules import Constant, Geometric, StdAnnealing
from nvisa.methods.nvisa import Bound
from nvisa.nets.layers import Network
from nvisa.nets.mixture_vae import MixtureVAE
from nvisa.nets.rows import Source, subset
from nvisa.nets.units import Rescale
from nvisa.settings import SettingError, check_settings
from oracles import build, normal

D, Z, K = 4, 2, 3


def networks(rng, likelihood="gaussian_shared", hidden=7):
    """A MixtureVAE with random weights; the rescaling is the identity."""
    network = Network(hidden=(hidden, hidden), latent_dim=Z, batch_norm=False)
    rescale = Rescale(torch.zeros(D), torch.ones(D))
    return build(lambda: MixtureVAE(rescale, K, network, likelihood=likelihood, posterior="joint"), rng, spread=0.5)


def test_distilling_with_the_autoencoder_keeps_it_and_without_it_does_not(rng):
    x = normal(rng, 100, D).float()
    source = Source(x.numpy())
    start = Start(np.arange(100), normal(rng, 100, K).mul(9).softmax(1).float().numpy(), np.zeros((100, Z)), 0.0)
    errors = {}
    for kept in (True, False):
        net = networks(torch.Generator().manual_seed(3), hidden=32).float()
        pretrain(net, source, Training(epochs=200, batch_size=50, learning_rate=5e-3), rng)
        before = float(reconstruction_error(net, x).detach().mean())
        training = Training(epochs=200, batch_size=50, learning_rate=5e-3)
        beside = (lambda x, net=net: -reconstruction_error(net, x)) if kept else None
        history = distill(net.log_q_y, net, source, start, training, rng, beside=beside)
        assert history[-1]["log_q_of_start"] > -0.6  # of -1.1: it has learned the assignment
        errors[kept] = float(reconstruction_error(net, x).detach().mean()) / before
    assert errors[True] < 1.2
    assert errors[False] > 2.0


def test_the_start_s_rows_are_taught_and_no_others(rng):
    """Of 200 rows the start knows the last 50, and of these the side of the first column."""
    x = normal(rng, 200, D).float()
    source, rows = Source(x.numpy()), np.arange(150, 200)
    side = (x[:, 0] > 0).long()
    start = Start(rows, torch.eye(K)[side[rows]].numpy(), np.zeros((50, Z)), 0.0)
    net = networks(torch.Generator().manual_seed(3), hidden=16).float()
    distill(net.log_q_y, net, source, start, Training(epochs=60, batch_size=25, learning_rate=1e-2), rng)
    with torch.no_grad():
        assert (net.log_q_y(x[rows]).argmax(1) == side[rows]).float().mean() > 0.95
        assert (net.log_q_y(x).argmax(1) == side).float().mean() > 0.7  # the others follow as far as it reaches


STILL = Training(epochs=1, batch_size=60, learning_rate=0.0)  # an epoch that moves nothing


def bound_of(net, generator, x=Constant(0.5), z=Constant(0.3)):
    return Bound(net, "vimco", 4, False, x, z, generator)


def test_a_warm_start_loads_the_codes_and_begins_at_the_first_floors(rng):
    x, proba = normal(rng, 60, D).float(), normal(rng, 60, K).mul(3).softmax(1).float().numpy()
    start = Start(np.arange(60), proba, np.zeros((60, Z)), 0.0)
    warm, twin = (networks(torch.Generator().manual_seed(3)).float() for _ in range(2))
    floors = Geometric(0.7, 0.01), Geometric(0.4, 0.01)
    source = Source(x.numpy())
    warm_start(warm, source, start, STILL, rng, (), lambda: bound_of(warm, rng, *floors))
    twin.load_codes(twin.code(x).detach().numpy(), proba)
    twin.init_scales(x, 0.7, 0.4)
    assert all(map(torch.equal, warm.state_dict().values(), twin.state_dict().values()))


def test_a_warm_start_teaches_loads_begins_and_teaches_again(rng, monkeypatch):
    """In this order: 8 % of the run beside the autoencoder, the codes, the deviations, 25 % beside the bound."""
    net, x, calls = networks(rng).float(), normal(rng, 60, D).float(), []
    start = Start(np.arange(30), np.full((30, K), 1 / K, np.float32), np.zeros((30, Z)), 0.0)
    bound = bound_of(net, rng)

    def distilled(log_q_y_of, module, source, taught, training, generator, listeners, beside):
        assert (log_q_y_of, module, taught, listeners) == (net.log_q_y, net, start, watching)
        calls.append(("distill", training.epochs, beside))
        return [{"stage": "distillation", "epochs": training.epochs}]

    monkeypatch.setattr(initialization, "distill", distilled)
    for name in ("load_codes", "init_scales"):
        monkeypatch.setattr(net, name, lambda *args, name=name: calls.append((name, *args)))
    watching = (Listener(),)
    history = warm_start(net, Source(x.numpy()), start, Training(epochs=100), rng, watching, lambda: bound)
    assert [call[0] for call in calls] == ["distill", "load_codes", "init_scales", "distill"]
    assert [record["epochs"] for record in history] == [8, 25]
    (_, _, beside), (_, codes, proba), (_, seen, *floors), (_, _, beside_then) = calls
    assert_close(beside(x), -reconstruction_error(net, x))
    np.testing.assert_allclose(codes, net.code(x[:30]).detach(), rtol=1e-5, atol=1e-6)
    assert proba is start.proba
    assert torch.equal(seen, x[:30])  # the start's rows, at most 4,096 of them
    assert floors == [0.5, 0.3]
    state = rng.get_state()  # of the bound's draws too
    expected = bound_with_fixed_q_y(bound, x)
    rng.set_state(state)
    assert_close(beside_then(x), expected)


def test_with_q_y_fixed_the_bound_is_the_bound_and_moves_everything_else(rng):
    net, x = networks(rng), normal(rng, 6, D)
    values = []
    for fixed in (True, False):
        bound = bound_of(net, torch.Generator().manual_seed(5))
        value = bound_with_fixed_q_y(bound, x) if fixed else bound(x, np.arange(6), 0.0).value
        net.zero_grad()
        value.sum().backward()
        values.append(value.detach())
        assert (net.y_logits.weight.grad is None) == fixed
        assert net.z_head.loc.weight.grad.abs().max() > 0
        assert net.trunk[0].weight.grad.abs().max() > 0
    assert_close(*values)


def test_training_begins_higher_from_a_warm_start():
    X, _ = make_blobs(400, centers=4, n_features=8, cluster_std=0.7, random_state=0)
    bounds = []
    for init in (WarmStart("gmm"), "gmm"):
        settings = {"network": Network(hidden=(24,), latent_dim=2, batch_norm=False), "init": init}
        settings |= {
            "training": Training(epochs=20, batch_size=50),
            "std_annealing": StdAnnealing(*2 * [Constant(0.02)]),
        }
        model = NVISA(4, consistency=None, n_samples=5, random_state=0, **settings).fit(X)
        bounds.append(next(record["bound"] for record in model.history_ if record["stage"] == "training"))
    assert bounds[0] > bounds[1] + 1.0


@pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")  # after twelve epochs
@pytest.mark.parametrize("kind", [NVISA, GMVAE])
def test_the_history_begins_with_the_start(kind):
    seen = []
    model = kind(2, init="gmm", training=Training(epochs=12, batch_size=64), random_state=0)
    X, _ = make_blobs(120, 4, centers=2, random_state=0)
    model.on_epoch(lambda clusterer, record: seen.append(record)).fit(X)
    assert list(dict.fromkeys(record["stage"] for record in seen)) == ["pretraining", "distillation", "training"]
    assert model.history_ == seen
    assert model.n_iter_ == len(seen)


# ---- a first assignment ----------------------------------------------------------------------------------------------


class Model:
    """A clusterer that gives every row the cluster of its sign, and notes what it was asked for."""

    def __init__(self, n_clusters=2) -> None:
        self.n_clusters, self.asked = n_clusters, []

    def predict_proba(self, X):
        self.asked.append(X)
        return np.eye(self.n_clusters)[(X[:, 0] > 0).astype(int)]


@pytest.fixture
def blobs():
    return make_blobs(120, n_features=D, centers=np.array([[-4.0] * D, [4.0] * D]), random_state=0)


class Halved:
    """An autoencoder as far as a start looks at it: the code is half of the row."""

    rescale = Rescale(torch.ones(D), torch.ones(D))

    def code(self, x):
        return x[:, :Z]


@pytest.mark.parametrize("init", ["auto", "umap", "gmm", Model()], ids=["auto", "umap", "gmm", "model"])
def test_a_start_finds_the_two_planted_groups(blobs, init):
    X, y = blobs
    start = find_start(Halved(), Source(X), init, 2, np.random.RandomState(0))
    assert start.rows.tolist() == list(range(120))
    assert start.proba.dtype == np.float32
    labels = start.proba.argmax(1)
    assert len(set(zip(labels, y, strict=True))) == 2
    assert start.score == pytest.approx(np.log(2), abs=0.02)
    np.testing.assert_array_equal(start.codes, X[:, :Z].astype(np.float32))
    if isinstance(init, Model):
        np.testing.assert_array_equal(init.asked[0], X)  # in the user's type and units


def test_a_model_of_another_number_of_clusters_is_no_start(blobs):
    with pytest.raises(SettingError, match="init must be a start of n_clusters=3 clusters, got 2"):
        NVISA(3, init=Model()).on_epoch(lambda *_: pytest.fail("before anything is trained")).fit(blobs[0])


def test_a_start_must_be_fitted(blobs):
    for init in (AEGMM(2), WarmStart(AEGMM(2)), ("random", AEGMM(2))):
        clusterer = NVISA(2, init=init, n_restarts=2).on_epoch(lambda *_: pytest.fail("before anything is trained"))
        with pytest.raises(SettingError, match="init must be a fitted clusterer, got AEGMM"):
            clusterer.fit(blobs[0])


def test_codes_are_made_of_a_part_of_many_rows():
    X, random = np.random.RandomState(1).randn(50, D).astype(np.float32), np.random.RandomState
    codes = codes_of(Halved(), Source(X), random(4), limit=20)
    np.testing.assert_array_equal(codes, X[subset(50, random(4), 20), :Z])


def test_distilling_climbs_the_mean_log_q_of_the_assignment(rng):
    """The value and the term of one batch, against their formula; what is beside it is added to the value alone."""
    net, X = networks(rng).float(), normal(rng, 8, D).float()
    proba = normal(rng, 8, K).softmax(1).float()
    start = Start(np.arange(8), proba.numpy(), np.zeros((8, Z)), 0.0)
    expected = float((proba * net.log_q_y(X).detach()).sum(1).mean())
    with config(precision="float32"):
        (record,) = distill(net.log_q_y, net, Source(X.numpy()), start, STILL, rng, beside=lambda x: x[:, 0] ** 2)
    assert record["log_q_of_start"] == pytest.approx(expected, rel=1e-5)
    assert record["objective"] == pytest.approx(expected + float((X[:, 0] ** 2).mean()), rel=1e-5)
    assert (record["stage"], record["epoch"]) == ("distillation", 1)


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"init": "x"},
            "init must be one of 'umap', 'gmm' or a fitted clusterer with predict_proba, got 'x'.",
        ),
        ({"masked": 1.0}, "masked must be a number in [0, 1), got 1.0."),
        ({"masked": -0.1}, "masked must be a number in [0, 1), got -0.1."),
    ],
    ids=str,
)
def test_warm_starts_that_cannot_be_are_refused(wrong, message):
    check_settings(WarmStart(Model(), masked=0.99))
    with pytest.raises(SettingError) as caught:
        check_settings(WarmStart(**wrong))
    assert str(caught.value) == message


# ---- a start that stands ---------------------------------------------------------------------------------------------


def test_beside_a_clear_start_only_its_cross_entropy_moves_the_head_of_q(rng):
    """``L(x) / D + sum_k r_k log q(k|x)``: the bound trains everything but the last layer of q(y|x)."""
    net, n = networks(rng), 5
    x, rows = normal(rng, n, D), np.arange(n)
    known = [4, 1, 3, 2, 6]  # of seven rows the start does not know the first and the sixth
    start = Start(np.array(known), normal(rng, len(known), K).softmax(-1).numpy(), np.zeros((len(known), 1)), 0.0)
    proba = torch.zeros(n + 2, K, dtype=torch.float64)
    proba[known] = torch.from_numpy(start.proba)
    floors = (lambda t: 0.4), (lambda t: 0.2)
    bound = Bound(net, "vimco", 3, False, *floors, torch.Generator().manual_seed(5))
    step = BoundBesideStart.of(bound, start, Source(np.zeros((n + 2, D), np.float32)))(x, rows, 0.0)
    h = net.trunk(net.rescale(x))
    log_q_y = net.log_q_y_from(h)
    agreement = (proba[:n] * log_q_y).sum(-1)
    same = Bound(net, "vimco", 3, False, *floors, torch.Generator().manual_seed(5))
    expected = same.bound(net.rescale(x), h, log_q_y.detach(), 0.0)[0] / D + agreement
    torch.testing.assert_close(step.value, expected)
    assert step.terms["log_q_of_start"][0] == 0.0
    head = list(net.y_logits.parameters())
    found = torch.autograd.grad(step.value.sum(), head, retain_graph=True)
    for gradient, alone in zip(found, torch.autograd.grad(agreement.sum(), head), strict=True):
        torch.testing.assert_close(gradient, alone)


def test_the_sizes_to_expect_are_half_those_of_the_start_and_half_equal():
    start = Start(np.arange(4), np.eye(3)[[0, 0, 0, 1]], np.zeros((4, 2)), 0.0)
    half = torch.tensor([0.75, 0.25, 0.0]).double() / 2 + 1 / 6
    torch.testing.assert_close(start.log_sizes.exp(), half)


def test_the_refitted_head_is_multinomial_regression_on_the_trunk_and_nothing_else_moves(rng):
    net, n, ridge = networks(rng), 60, 1e-2
    x = normal(rng, n, D).float()
    net = net.float()
    start = Start(np.arange(n), normal(rng, n, K).mul(3).softmax(1).float().numpy(), np.zeros((n, Z)), 0.0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    refit_head(net, Source(x.numpy()), start, ridge=ridge, n_steps=500)
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"y_logits.weight", "y_logits.bias"}
    h = net.trunk(net.rescale(x)).detach().double()
    weight, bias = (parameter.detach().double() for parameter in net.y_logits.parameters())
    q = (h @ weight.T + bias).softmax(1)
    error = (q - torch.from_numpy(start.proba).double()) / n  # the gradient of the loss in the logits
    assert (error.T @ h + ridge * weight).abs().max() < 1e-4
    assert error.sum(0).abs().max() < 1e-4
